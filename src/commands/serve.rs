//! `nodeforge serve`: the boot server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::ServeArgs;
use crate::commands::Outcome;
use crate::serve::Options;
use crate::serve::dhcp::{Service, Strangers};
use crate::serve::machine::Limits;
use crate::serve::network::{NetworkOptions, Tftp};
use crate::serve::run::{self, Certificate, RunOptions};

pub fn run(args: &ServeArgs) -> Result<Outcome> {
    let tls = args.tls_certificate.clone().zip(args.tls_key.clone());
    run::run(&RunOptions {
        server: Options {
            out: args.out.clone(),
            state: state_folder(&args.out, args.state.as_deref()),
            limits: Limits { attempts: args.attempts },
        },
        listen: args.listen,
        tls: tls.map(|(chain, key)| Certificate { chain, key }),
        is_forwarded: args.forwarded,
        network: NetworkOptions { tftp: tftp(args)?, dhcp: dhcp(args) },
        max_connections: args.max_connections as usize,
    })?;
    Ok(Outcome::Done)
}

fn tftp(args: &ServeArgs) -> Result<Tftp> {
    Ok(match args.tftp.as_deref() {
        None if args.dhcp || args.proxy_dhcp => Tftp::BesideHttp,
        None => Tftp::Off,
        Some("") => Tftp::BesideHttp,
        Some(address) => {
            let wrong = || format!("--tftp={address}: expected an address such as 10.0.0.1:69");
            Tftp::At(address.parse().with_context(wrong)?)
        }
    })
}

fn dhcp(args: &ServeArgs) -> Option<(Service, Strangers)> {
    let strangers = match args.answer_strangers {
        true => Strangers::Answered,
        false => Strangers::Ignored,
    };
    match (args.dhcp, args.proxy_dhcp) {
        (true, _) => Some((Service::Addresses, strangers)),
        (_, true) => Some((Service::Proxy, strangers)),
        (false, false) => None,
    }
}

/// Beside the boot tree, which may be thrown away and built again; the state may not.
pub fn state_folder(out: &Path, given: Option<&Path>) -> PathBuf {
    given.map_or_else(
        || {
            // `out/` and `out` are the same folder.
            let mut name = out.components().as_path().as_os_str().to_owned();
            name.push(".state");
            name.into()
        },
        Path::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_lies_beside_the_boot_tree() {
        for (out, state) in
            [("out", "out.state"), ("out/", "out.state"), ("/srv/a/out", "/srv/a/out.state")]
        {
            assert_eq!(state_folder(Path::new(out), None), Path::new(state), "{out}");
        }
        assert_eq!(state_folder(Path::new("out"), Some(Path::new("x"))), Path::new("x"));
    }
}
