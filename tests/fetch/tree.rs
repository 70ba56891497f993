//! Fetching from an installation tree: whole outcomes, resuming, retries, refusals.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use nodeforge::fetch::{Assurance, CachedImage, RecordedImage, cached};

use super::server::{Fault, File, Server};
use super::*;

const KERNEL: &str = "/BaseOS/x86_64/kickstart/images/pxeboot/vmlinuz";
const INITRD: &str = "/BaseOS/x86_64/kickstart/images/pxeboot/initrd.img";
const INSTALL_IMG: &str = "/BaseOS/x86_64/kickstart/images/install.img";
const TREEINFO: &str = "/BaseOS/x86_64/kickstart/.treeinfo";

fn tree() -> ImageSource {
    ImageSource::Tree("kickstart".to_owned())
}

/// A mirror of release 8.9.
fn mirror() -> Server {
    let images = images();
    let mut files: BTreeMap<String, File> = images
        .iter()
        .map(|(path, body)| {
            let etag = Some(format!("\"{path}\""));
            let file = File { body: body.clone(), etag, ..File::default() };
            (format!("/BaseOS/x86_64/kickstart/{path}"), file)
        })
        .collect();
    let body = treeinfo("8.9", &images).into_bytes();
    files.insert(TREEINFO.to_owned(), File { body, ..File::default() });
    Server::start(files)
}

fn served(path: &str, status: u16, bytes: usize) -> server::Served {
    (path.to_owned(), status, bytes)
}

/// What was served of `path` only.
fn served_of(server: &Server, path: &str) -> Vec<(u16, usize)> {
    let of_path = |(own, status, bytes)| (own == path).then_some((status, bytes));
    server.take_served().into_iter().filter_map(of_path).collect()
}

#[test]
fn a_fetch_fills_the_cache_and_the_next_one_needs_no_network() {
    let (server, bench) = (mirror(), Bench::new());
    let request = bench.request(&server.url, tree());
    let fetched = bench.fetch(&request).unwrap();

    let images = images();
    let cached_image = |name: &str, tree_path: &str| CachedImage {
        path: bench.path(name),
        image: RecordedImage {
            size: images[tree_path].len() as u64,
            sha256: Digest::of(&images[tree_path]),
            source: format!("{}/BaseOS/x86_64/kickstart/{tree_path}", server.url),
            assurance: Assurance::MirrorDigest,
        },
    };
    let kernel = cached_image("vmlinuz", "images/pxeboot/vmlinuz");
    let initrd = cached_image("initrd.img", "images/pxeboot/initrd.img");
    let expected = Fetched {
        release: "8.9".to_owned(),
        images: BTreeMap::from([
            (ImageName::Kernel, kernel.clone()),
            (ImageName::Initrd, initrd.clone()),
        ]),
        fetched: names(&[ImageName::Kernel, ImageName::Initrd]),
    };
    assert_eq!(fetched, expected);
    assert_eq!(bench.image_files(), boot_images());
    assert_eq!(bench.files()[".treeinfo"], treeinfo("8.9", &images).into_bytes());
    let treeinfo_bytes = treeinfo("8.9", &images).len();
    assert_eq!(
        server.take_served(),
        [
            served(TREEINFO, 200, treeinfo_bytes),
            served(KERNEL, 200, 5001),
            served(INITRD, 200, 3004)
        ]
    );
    assert_eq!(
        bench.take_notes(),
        [Note::Warning(format!(
            "{}/BaseOS/x86_64/kickstart is plain http: the digests guard against accidents only; \
             take the images out of the signed ISO to be sure that they are AlmaLinux's",
            server.url
        ))]
    );
    let of_build = cached(bench.cache.path(), "8.9").unwrap();
    assert_eq!((of_build.kernel, of_build.initrd, of_build.install_img), (kernel, initrd, None));

    let again = bench.fetch(&request).unwrap();
    assert_eq!(again, Fetched { fetched: names(&[]), ..expected });
    assert_eq!(server.take_served(), []);
    assert_eq!(
        bench.take_notes(),
        [Note::Info(format!(
            "release 8.9: all images are whole in {}, nothing was fetched",
            bench.path("").display().to_string().trim_end_matches('/')
        ))]
    );
}

#[test]
fn a_local_mirror_gives_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let tree_folder = folder.path().join("BaseOS/x86_64/kickstart");
    for (path, bytes) in images() {
        let path = tree_folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fs::write(tree_folder.join(".treeinfo"), treeinfo("8.9", &images())).unwrap();
    let path = folder.path().to_str().unwrap();
    for mirror in [path.to_owned(), format!("file://{path}")] {
        let bench = Bench::new();
        bench.fetch(&bench.request(&mirror, tree())).unwrap();
        assert_eq!(bench.image_files(), boot_images(), "from {mirror}");
        assert_eq!(bench.take_notes(), [], "from {mirror}");
    }
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let (server, bench) = (mirror(), Bench::new());
    server.change(KERNEL, |kernel| {
        kernel.faults = [Fault::CutAfter(700), Fault::CutAfter(1000)].into();
    });
    bench.fetch(&bench.request(&server.url, tree())).unwrap();
    assert_eq!(served_of(&server, KERNEL), [(200, 700), (206, 1000), (206, 3301)]);
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn an_interrupted_fetch_is_resumed_by_the_next_run() {
    let (server, bench) = (mirror(), Bench::new());
    let request = bench.request(&server.url, tree());
    server.change(INITRD, |initrd| initrd.faults = [Fault::CutAfter(100); 3].into());
    let failure = bench.failure(&request);
    let url = format!("{}{INITRD}", server.url);
    assert!(
        failure.starts_with(&format!(
            "fetching release 8.9: giving up on {url} after 3 tries; \
             300 bytes are kept, run it again to go on from there: "
        )),
        "{failure}"
    );
    assert_eq!(cached(bench.cache.path(), "8.9"), None);
    let left: Vec<String> = bench.files().into_keys().collect();
    let expected =
        [".incoming/initrd.img.part", ".incoming/initrd.img.part.tag", ".incoming/vmlinuz.part"];
    assert_eq!(left, expected);

    server.take_served();
    bench.fetch(&request).unwrap();
    let treeinfo_bytes = treeinfo("8.9", &images()).len();
    assert_eq!(
        server.take_served(),
        [served(TREEINFO, 200, treeinfo_bytes), served(INITRD, 206, 2704)]
    );
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn a_server_without_ranges_makes_it_start_over() {
    let (server, bench) = (mirror(), Bench::new());
    server.change(KERNEL, |kernel| {
        kernel.refuses_ranges = true;
        kernel.faults = [Fault::CutAfter(700)].into();
    });
    bench.fetch(&bench.request(&server.url, tree())).unwrap();
    assert_eq!(served_of(&server, KERNEL), [(200, 700), (200, 5001)]);
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn a_part_of_another_version_is_not_continued() {
    let (server, bench) = (mirror(), Bench::new());
    let request = bench.request(&server.url, tree());
    let right = images()["images/pxeboot/vmlinuz"].clone();
    server.change(KERNEL, |kernel| {
        kernel.body = vec![9; 5001];
        kernel.etag = Some("\"old\"".to_owned());
        kernel.faults = [Fault::CutAfter(700), Fault::Status(503), Fault::Status(503)].into();
    });
    bench.failure(&request);
    server.take_served();
    server.change(KERNEL, |kernel| {
        kernel.body = right;
        kernel.etag = Some("\"new\"".to_owned());
    });
    bench.fetch(&request).unwrap();
    assert_eq!(served_of(&server, KERNEL), [(200, 5001)]);
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn a_wrong_part_is_thrown_away_and_fetched_anew_once() {
    for (length, requests) in [
        (700, vec![(206, 4301), (200, 5001)]),
        (5001, vec![(416, 0), (200, 5001)]),
        (9000, vec![(416, 0), (200, 5001)]),
    ] {
        let (server, bench) = (mirror(), Bench::new());
        fs::create_dir_all(bench.path(".incoming")).unwrap();
        fs::write(bench.path(".incoming/vmlinuz.part"), vec![b'x'; length]).unwrap();
        bench.fetch(&bench.request(&server.url, tree())).unwrap();
        assert_eq!(served_of(&server, KERNEL), requests, "a part of {length} bytes");
        assert_eq!(bench.image_files(), boot_images(), "a part of {length} bytes");
        assert_eq!(
            bench.take_notes()[1..],
            [Note::Info(format!(
                "{}{KERNEL}: what an earlier run left does not fit, fetching it anew",
                server.url
            ))]
        );
    }
}

#[test]
fn a_wrong_digest_fails_and_nothing_enters_the_cache() {
    let (server, bench) = (mirror(), Bench::new());
    server.change(INITRD, |initrd| initrd.body[9] ^= 1);
    let wrong = Digest::of(&{
        let mut body = images()["images/pxeboot/initrd.img"].clone();
        body[9] ^= 1;
        body
    });
    let right = Digest::of(&images()["images/pxeboot/initrd.img"]);
    assert_eq!(
        bench.failure(&bench.request(&server.url, tree())),
        format!(
            "fetching release 8.9: {}{INITRD} has the wrong digest and was thrown away: \
             3004 bytes with sha256 {wrong}, expected {right}; the mirror is broken or in the \
             middle of an update, or something on the way changed the file: try again later or \
             use another mirror",
            server.url
        )
    );
    assert_eq!(served_of(&server, INITRD), [(200, 3004)]);
    let left: Vec<String> = bench.files().into_keys().collect();
    assert_eq!(left, [".incoming/vmlinuz.part"], "the good kernel waits outside");
    assert_eq!(cached(bench.cache.path(), "8.9"), None);
}

#[test]
fn files_that_are_not_what_they_claim_stay_out() {
    for (path, what) in [
        ("images/pxeboot/vmlinuz", "Linux kernel"),
        ("images/pxeboot/initrd.img", "initramfs"),
        ("images/install.img", "squashfs image"),
    ] {
        let (server, bench) = (mirror(), Bench::new());
        let mut images = images();
        images.insert(path, b"<html>not found</html>".repeat(40));
        let place = format!("/BaseOS/x86_64/kickstart/{path}");
        server.change(&place, |file| file.body = images[path].clone());
        server.change(TREEINFO, |file| file.body = treeinfo("8.9", &images).into_bytes());
        let mut request = bench.request(&server.url, tree());
        request.also.insert(ImageName::InstallImg);
        assert_eq!(
            bench.failure(&request),
            format!(
                "fetching release 8.9: {}{place} has the digest it should have, \
                 but is no {what}: use another mirror",
                server.url
            )
        );
        assert!(!bench.path("vmlinuz").exists() && !bench.path("images.json").exists());
    }
}

#[test]
fn passing_faults_are_tried_again_within_bounds() {
    let (server, bench) = (mirror(), Bench::new());
    server.change(TREEINFO, |file| file.faults = [Fault::Status(503)].into());
    server.change(KERNEL, |file| file.faults = [Fault::Status(502), Fault::Status(429)].into());
    bench.fetch(&bench.request(&server.url, tree())).unwrap();
    let statuses: Vec<u16> = server.take_served().iter().map(|(_, status, _)| *status).collect();
    assert_eq!(statuses, [503, 200, 502, 429, 200, 200]);
    assert_eq!(
        bench.take_notes()[1],
        Note::Info(format!(
            "{}{TREEINFO}: the server answers 503 Service Unavailable; \
             trying again in 0 s (1 of 2)",
            server.url
        ))
    );

    let (server, bench) = (mirror(), Bench::new());
    server.change(KERNEL, |file| file.faults = [Fault::Status(500); 9].into());
    assert_eq!(
        bench.failure(&bench.request(&server.url, tree())),
        format!(
            "fetching release 8.9: giving up on {0}{KERNEL} after 3 tries; 0 bytes are kept, \
             run it again to go on from there: {0}{KERNEL}: the server answers 500 Internal Server Error",
            server.url
        )
    );
    assert_eq!(served_of(&server, KERNEL), [(500, 0); 3]);
}

#[test]
fn refusals_are_not_tried_again() {
    let (server, bench) = (mirror(), Bench::new());
    server.change(KERNEL, |file| file.faults = [Fault::Status(403)].into());
    let failure = bench.failure(&bench.request(&server.url, tree()));
    let url = format!("{}{KERNEL}", server.url);
    assert_eq!(failure, format!("fetching release 8.9: {url}: the server answers 403 Forbidden"));
    assert_eq!(served_of(&server, KERNEL), [(403, 0)]);
}

#[test]
fn a_server_that_is_not_there_is_said_with_its_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bench = Bench::new();
    let failure = bench.failure(&bench.request(&url, tree()));
    let start = format!(
        "fetching release 8.9: giving up after 3 tries: asking for {url}/BaseOS/x86_64/kickstart/.treeinfo: "
    );
    assert!(failure.starts_with(&start), "{failure}");
    assert!(failure.contains("refused"), "{failure}");
}

#[test]
fn a_mirror_without_the_release_says_what_to_check() {
    let cases: [(&str, &str); 3] = [
        ("[release]\nversion = 8.10\n", "URL is the tree of 8.10, not of 8.9"),
        ("[tree]\narch = aarch64\n", "URL is a tree for aarch64, not for x86_64"),
        (
            "[release]\nversion = 8.9\n",
            "URL/.treeinfo has no sha256 of images/pxeboot/vmlinuz; use another mirror",
        ),
    ];
    for (text, message) in cases {
        let (server, bench) = (mirror(), Bench::new());
        server.change(TREEINFO, |file| file.body = text.as_bytes().to_vec());
        let url = format!("{}/BaseOS/x86_64/kickstart", server.url);
        assert_eq!(
            bench.failure(&bench.request(&server.url, tree())),
            format!("fetching release 8.9: {}", message.replace("URL", &url))
        );
    }
    let (server, bench) = (Server::start(BTreeMap::new()), Bench::new());
    assert_eq!(
        bench.failure(&bench.request(&server.url, tree())),
        format!(
            "fetching release 8.9: {}/BaseOS/x86_64/kickstart is no installation tree, it has no \
             .treeinfo; check `os.mirror`, `os.tree` and `os.release`: releases that are not the \
             newest are at https://vault.almalinux.org/",
            server.url
        )
    );
}

#[test]
fn two_fetches_at_once_fetch_once() {
    let (server, bench) = (mirror(), Bench::new());
    let (request, trust) = (bench.request(&server.url, tree()), &bench.trust);
    let outcomes: Vec<usize> = thread::scope(|scope| {
        let fetch = || {
            let client = Client::new(QUICK, &|_| ());
            fetch::fetch(&request, trust, &client).unwrap().fetched.len()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().sum::<usize>(), 2, "{outcomes:?}");
    assert_eq!(served_of(&server, KERNEL), [(200, 5001)]);
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn a_further_image_is_fetched_alone() {
    let (server, bench) = (mirror(), Bench::new());
    let mut request = bench.request(&server.url, tree());
    bench.fetch(&request).unwrap();
    server.take_served();
    request.also.insert(ImageName::InstallImg);
    let fetched = bench.fetch(&request).unwrap().fetched;
    assert_eq!(fetched, names(&[ImageName::InstallImg]));
    let treeinfo_bytes = treeinfo("8.9", &images()).len();
    assert_eq!(
        server.take_served(),
        [served(TREEINFO, 200, treeinfo_bytes), served(INSTALL_IMG, 200, 2004)]
    );
    let mut expected = boot_images();
    expected.insert("install.img".to_owned(), images()["images/install.img"].clone());
    assert_eq!(bench.image_files(), expected);
}

#[test]
fn a_kernel_and_an_initramfs_of_different_trees_never_mix() {
    let (server, bench) = (mirror(), Bench::new());
    let mut request = bench.request(&server.url, tree());
    bench.fetch(&request).unwrap();
    let mut newer = images();
    newer.insert("images/pxeboot/vmlinuz", kernel(6001));
    server.change(KERNEL, |file| file.body = kernel(6001));
    server.change(TREEINFO, |file| file.body = treeinfo("8.9", &newer).into_bytes());
    server.take_served();
    request.also.insert(ImageName::InstallImg);
    bench.fetch(&request).unwrap();
    assert_eq!(fs::read(bench.path("vmlinuz")).unwrap(), kernel(6001));
    let paths: Vec<String> = server.take_served().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(paths, [TREEINFO, KERNEL, INSTALL_IMG]);
}

#[test]
fn a_damaged_image_is_fetched_again() {
    let (server, bench) = (mirror(), Bench::new());
    let request = bench.request(&server.url, tree());
    bench.fetch(&request).unwrap();
    fs::write(bench.path("initrd.img"), b"damaged").unwrap();
    assert_eq!(cached(bench.cache.path(), "8.9"), None);
    server.take_served();
    assert_eq!(bench.fetch(&request).unwrap().fetched, names(&[ImageName::Initrd]));
    assert_eq!(served_of(&server, INITRD), [(200, 3004)]);
    assert_eq!(bench.image_files(), boot_images());
}

#[test]
fn fetching_anew_asks_the_mirror_again() {
    let (server, bench) = (mirror(), Bench::new());
    let mut request = bench.request(&server.url, tree());
    bench.fetch(&request).unwrap();
    server.take_served();
    request.freshness = Freshness::FetchAnew;
    bench.fetch(&request).unwrap();
    let paths: Vec<String> = server.take_served().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(paths, [TREEINFO, KERNEL, INITRD]);
}

#[test]
fn releases_that_would_leave_the_cache_are_refused() {
    for release in ["../8.9", "8.9/..", "", ".", "8.9-beta"] {
        let bench = Bench::new();
        let request = Request { release: release.to_owned(), ..bench.request("/nowhere", tree()) };
        assert_eq!(
            bench.failure(&request),
            format!("`{release}` is no release; expected one like 8.9")
        );
        assert_eq!(files_below(bench.cache.path()), BTreeMap::new());
    }
}

#[test]
fn images_can_be_read_by_the_web_server() {
    let (server, bench) = (mirror(), Bench::new());
    bench.fetch(&bench.request(&server.url, tree())).unwrap();
    for name in ["vmlinuz", "initrd.img", "images.json"] {
        let mode = fs::metadata(bench.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{name} has mode {mode:o}");
    }
}
