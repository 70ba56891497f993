//! Where to listen, so that it is where the nodes will look.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `boot.url`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootUrl {
    pub is_https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// Without a slash at its end.
    pub path: String,
}

impl BootUrl {
    /// Takes apart what the cluster file's check has let through; `None` for anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_https = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, if is_https { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (!host.is_empty()).then(|| Self {
            is_https,
            host,
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Where to listen if nobody says: the address and port of the URL; all addresses if it
    /// has a name.
    pub fn default_listen(&self) -> SocketAddr {
        let address = self.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(address, self.port)
    }

    /// Why a server that listens there would not be found at this URL; all reasons.
    pub fn disagreements(&self, listen: SocketAddr, has_certificate: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        if listen.port() != self.port {
            reasons.push(format!("port {} is not the URL's, {}", listen.port(), self.port));
        }
        let address: Option<IpAddr> = self.host.parse().ok();
        if let Some(address) = address
            && !listen.ip().is_unspecified()
            && listen.ip() != address
        {
            reasons.push(format!("address {} is not the URL's, {address}", listen.ip()));
        }
        match (self.is_https, has_certificate) {
            (true, false) => reasons
                .push("the URL is https, which needs --tls-certificate and --tls-key".to_owned()),
            (false, true) => reasons.push("the URL is http, and a certificate is given".to_owned()),
            _ => {}
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_listen() {
        for (url, listen, path) in [
            ("http://192.168.3.1:8080", "192.168.3.1:8080", ""),
            ("http://192.168.3.1", "192.168.3.1:80", ""),
            ("https://boot.example.org/a/b/", "0.0.0.0:443", "/a/b"),
            ("http://[fd00::1]:81/x", "[fd00::1]:81", "/x"),
            ("http://[fd00::1]", "[fd00::1]:80", ""),
        ] {
            let parsed = BootUrl::parse(url).unwrap();
            assert_eq!(parsed.default_listen(), listen.parse().unwrap(), "{url}");
            assert_eq!(parsed.path, path, "{url}");
        }
        for url in ["ftp://a", "http://", "http://a:b", "boot"] {
            assert_eq!(BootUrl::parse(url), None, "{url}");
        }
    }

    #[test]
    fn an_address_that_nodes_would_not_find_is_told() {
        let url = BootUrl::parse("http://192.168.3.1:8080").unwrap();
        let reasons = |listen: &str, has| url.disagreements(listen.parse().unwrap(), has);
        assert_eq!(reasons("192.168.3.1:8080", false), [""; 0]);
        assert_eq!(reasons("0.0.0.0:8080", false), [""; 0]);
        assert_eq!(
            reasons("10.0.0.1:80", true),
            [
                "port 80 is not the URL's, 8080",
                "address 10.0.0.1 is not the URL's, 192.168.3.1",
                "the URL is http, and a certificate is given",
            ]
        );
    }
}
