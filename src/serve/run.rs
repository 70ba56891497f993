//! From options to a running server, and to its end.

use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::serve::http::{self, Settings};
use crate::serve::listen::BootUrl;
use crate::serve::network::{self, Network, NetworkOptions};
use crate::serve::{Options, Server, now, server_entry};
use crate::signals;

/// How often is looked whether another generation was published, or a node armed.
const LOOK: Duration = Duration::from_millis(200);

/// How many looks are between two for grants whose time is over.
const LOOKS_PER_EXPIRY: u32 = 25;

/// How many threads of each runtime, at most, read what is not small and the kernel does not send.
/// What they read is in the page cache as a rule, and each of them keeps memory of its own.
const N_READERS: usize = 4;

/// How many threads serve HTTP at most: a new connection wakes all that have nothing to do, and few
/// fill any network.
const MAX_SERVING: usize = 8;

/// How to serve.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub server: Options,
    /// `None` listens where `boot.url` says.
    pub listen: Option<SocketAddr>,
    pub tls: Option<Certificate>,
    /// Something between nodes and server changes the address: do not compare it.
    pub is_forwarded: bool,
    pub max_connections: usize,
    pub network: NetworkOptions,
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Serves until SIGINT or SIGTERM, and then until running downloads are done; a second signal
/// ends it at once.
///
/// # Errors
///
/// Fails if the folders cannot be used, another server has the state, or the address cannot be
/// listened on or is not where nodes look.
pub fn run(options: &RunOptions) -> Result<()> {
    let server = Arc::new(Server::open(&options.server)?);
    let _only_one = lock_state(&options.server.state)?;
    let url = url_of(&server)?;
    let listen = options.listen.unwrap_or_else(|| url.default_listen());
    if !options.is_forwarded {
        require_agreement(&server, &url, listen, options.tls.is_some())?;
    }
    let network = options.network.resolve(listen, &url.host)?;
    network::check_programs(&server, &network)?;
    let tls = options.tls.as_ref().map(acceptor).transpose()?;
    allow_many_files(options.max_connections);
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let settings = Settings { tls, prefix: url.path.clone(), slots };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(N_READERS)
        .build();
    let runtime = runtime.context("starting the threads of the server")?;
    runtime.block_on(serve(server, listen, Arc::new(settings), &network))
}

async fn serve(
    server: Arc<Server>,
    listen: SocketAddr,
    settings: Arc<Settings>,
    network: &network::Settings,
) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "listening on {listen} (it must be an address of this machine, as boot.url names it, \
             and no other server's)"
        )
    })?;
    let network = Network::open(network).await?;
    let (stop_all, stop) = watch::channel(false);
    tokio::spawn(watch_others(Arc::clone(&server)));
    tokio::spawn(tell(Arc::clone(&server)));
    let catalog = server.catalog();
    eprintln!(
        "serving generation {} of {} with {} nodes; listening on {}",
        catalog.number(),
        server.out().display(),
        catalog.manifest().nodes.len(),
        listener.local_addr()?
    );
    let n_pending = catalog.manifest().pxe.pending.len();
    if n_pending > 0 {
        eprintln!(
            "warning: {n_pending} images of the installer are still to come, and nothing can be \
             installed without: `nodeforge fetch`, then `build`"
        );
    }
    drop(catalog);
    network.announce();
    // Their answers are short: they go on until HTTP has ended, and end with the process.
    let beside = tokio::spawn(network.serve(Arc::clone(&server), |line| eprintln!("{line}")));
    let mut serving = serve_http(&server, listener, &settings, &stop)?;
    tokio::select! {
        signal = signals::wait() => signal?,
        ended = beside => ended.context("serving TFTP and DHCP")??,
        served = ended(&mut serving) => served?,
    }
    let n_downloads = server.counts.downloads.load(Ordering::Relaxed);
    eprintln!("stopping: {n_downloads} downloads are still running; stop again to end them");
    _ = stop_all.send(true);
    tokio::select! {
        served = ended(&mut serving) => served?,
        signal = signals::wait() => signal?,
    }
    eprintln!("stopped");
    Ok(())
}

/// Serves HTTP by a thread for each processor. A connection stays with the thread that accepted
/// it: answers are short, and handing one over costs as much as making it.
fn serve_http(
    server: &Arc<Server>,
    listener: TcpListener,
    settings: &Arc<Settings>,
    stop: &watch::Receiver<bool>,
) -> Result<JoinSet<Result<()>>> {
    let listener = listener.into_std()?;
    // Small answers to machines that wait for them must not wait for more. A connection is a copy
    // of its listener's socket, with its options (Linux, sk_clone_lock() in net/core/sock.c).
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let start = |at: usize| -> Result<oneshot::Receiver<Result<()>>> {
        let listener = listener.try_clone()?;
        let (server, settings, stop) = (Arc::clone(server), Arc::clone(settings), stop.clone());
        let (ended, end) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(N_READERS)
            .build()?;
        std::thread::Builder::new().name(format!("http-{at}")).spawn(move || {
            // As a task: what the runtime itself waits for is woken by a write to a descriptor.
            let served = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                tokio::spawn(http::serve(server, listener, settings, stop)).await?
            });
            // Nobody hears of it who has been told to end at once.
            _ = ended.send(served);
        })?;
        Ok(end)
    };
    let ends = (0..n_threads.min(MAX_SERVING)).map(start).collect::<Result<Vec<_>>>();
    let mut serving = JoinSet::new();
    for end in ends.context("starting the threads of the server")? {
        serving.spawn(async move { end.await.context("a thread of the server died")? });
    }
    Ok(serving)
}

/// Waits for all of them; the first failure ends it.
async fn ended(serving: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(end) = serving.join_next().await {
        end.context("serving")??;
    }
    Ok(())
}

/// Takes up what builds and other verbs do meanwhile.
async fn watch_others(server: Arc<Server>) {
    let mut last_fault = String::new();
    for n_looks in 0_u32.. {
        tokio::time::sleep(LOOK).await;
        let looking = Arc::clone(&server);
        let looked = tokio::task::spawn_blocking(move || looking.take_up_current()).await;
        let mut fault = String::new();
        match looked {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                server.counts.generations.fetch_add(1, Ordering::Relaxed);
                eprintln!("serving generation {} now", server.catalog().number());
            }
            Ok(Err(problem)) => fault = format!("{problem:#}"),
            Err(problem) => fault = problem.to_string(),
        }
        server.let_go();
        if let Err(problem) = server.store.refresh().await {
            fault = format!("{problem:#}");
        }
        if n_looks % LOOKS_PER_EXPIRY == 0
            && let Err(problem) = end_expired(&server).await
        {
            fault = format!("{problem:#}");
        }
        if fault != last_fault {
            if !fault.is_empty() {
                eprintln!("warning: {fault}");
            }
            last_fault = fault;
        }
    }
}

/// Takes away the grants whose time is over.
async fn end_expired(server: &Server) -> Result<()> {
    // Of nodes, too, that no manifest has any more.
    let over = server.store.nodes_where(|record| record.has_expired(now()));
    if over.is_empty() {
        return Ok(());
    }
    let change = server.store.change(move |change| {
        for node in &over {
            let mut record = change.record(node);
            if record.expire(now()) {
                let entry = server_entry("grant", record.state, "its grant expired".to_owned());
                change.note(node, &entry)?;
                change.put(node, record)?;
            }
        }
        Ok(())
    });
    change.await
}

/// Says on the terminal which node came where.
async fn tell(server: Arc<Server>) {
    let mut changes = server.store.changes();
    let mut told = std::collections::HashMap::new();
    loop {
        match changes.recv().await {
            Ok(node) => {
                let record = server.store.record(&node);
                let words = match &record.reason {
                    Some(reason) => format!("{}: {reason}", record.state.word()),
                    None => record.state.word().to_owned(),
                };
                if told.get(&node) != Some(&words) {
                    eprintln!("{node}: {words}");
                    told.insert(node, words);
                }
            }
            Err(RecvError::Lagged(n_missed)) => eprintln!("{n_missed} changes of nodes not told"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn url_of(server: &Server) -> Result<BootUrl> {
    let catalog = server.catalog();
    let url = catalog.manifest().boot.as_ref().map_or("", |boot| boot.url.as_str());
    BootUrl::parse(url).with_context(|| format!("`{url}` in the manifest is no URL to serve at"))
}

fn require_agreement(
    server: &Server,
    url: &BootUrl,
    listen: SocketAddr,
    has_certificate: bool,
) -> Result<()> {
    let reasons = url.disagreements(listen, has_certificate);
    let catalog = server.catalog();
    let text = catalog.manifest().boot.as_ref().map_or("", |boot| boot.url.as_str());
    ensure!(
        reasons.is_empty(),
        "nodes look for {text} (boot.url) and would not find a server at {listen}: {}; listen \
         elsewhere, or change boot.url and build again; --forwarded if something in between \
         translates",
        reasons.join("; ")
    );
    Ok(())
}

/// One server a state: two would each believe that theirs is what nodes know.
fn lock_state(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let mut options = File::options();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.with_context(|| format!("opening {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another server runs on {}; stop that one first", state.display());
    }
    Ok(file)
}

fn acceptor(certificate: &Certificate) -> Result<TlsAcceptor> {
    let Certificate { chain, key } = certificate;
    let reading =
        |what: &str, path: &Path| format!("reading the {what} in {}, as PEM", path.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| reading("certificates", chain))?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| reading("private key", key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .with_context(|| format!("{} and {} do not go together", chain.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection is a file descriptor, and a download a second one.
fn allow_many_files(max_connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = (max_connections as u64) * 2 + 256;
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted.min(most));
        if setrlimit(Resource::Nofile, limit).is_err() || wanted > most {
            eprintln!("warning: the system allows {most} open files; {wanted} may be needed");
        }
    }
}
