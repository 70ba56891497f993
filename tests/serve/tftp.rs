//! TFTP, asked by clients of others: curl, tftp-hpa and atftp.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;

/// Where the server says that TFTP listens.
fn tftp_address(server: &Server) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some((_, rest)) = server.said().split_once("TFTP listens on ") {
            return rest.lines().next().unwrap().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "{}", server.said());
        thread::yield_now();
    }
}

fn serve(lab: &Lab) -> (Server, String) {
    let words = ["--forwarded", "--listen", "127.0.0.1:0", "--tftp=127.0.0.1:0"];
    let server = lab.serve_with(&words);
    let address = tftp_address(&server);
    (server, address)
}

fn curl(address: &str, path: &str, words: &[&str]) -> Output {
    let mut command = support::command("curl");
    command.args(["--silent", "--show-error", "--max-time", "120", "--noproxy", "*"]);
    command.args(words).arg(format!("tftp://{address}/{path}"));
    command.output().unwrap()
}

#[test]
fn three_clients_get_the_same_bytes_in_blocks_of_every_size() {
    if support::lacks(&["curl", "tftp", "atftp"]) {
        return;
    }
    let lab = Lab::new();
    // Beyond the 65,535 blocks after which numbers wrap, in blocks of 8 bytes.
    let bytes = lab.add_large_file(600_000);
    let (_server, address) = serve(&lab);
    let (host, port) = address.rsplit_once(':').unwrap();
    for block in ["8", "512", "1428", "65464"] {
        let got = curl(&address, "large.bin", &["--tftp-blksize", block]);
        assert!(got.status.success(), "{block}: {:?}", support::spoken_lines(&got));
        assert_eq!(got.stdout.len(), bytes.len(), "curl with blocks of {block}");
        assert!(got.stdout == bytes, "curl with blocks of {block}");
    }
    let got = curl(&address, "large.bin", &["--tftp-no-options"]);
    assert!(got.stdout == bytes, "curl without options");

    let run = |program: &str, words: &[&str]| {
        let output = support::command(program).args(words).current_dir(lab.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{program}: {:?}", support::spoken_lines(&output));
    };
    run("tftp", &["-m", "binary", host, port, "-c", "get", "/large.bin", "hpa.bin"]);
    let window = ["--option", "windowsize 8", "--option", "blksize 1024", "--option", "tsize 0"];
    let words = ["--get", "--remote-file", "large.bin", "--local-file", "a.bin", host, port];
    run("atftp", &[&window[..], &words].concat());
    for name in ["hpa.bin", "a.bin"] {
        assert!(fs::read(lab.path().join(name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn boot_menus_by_tftp_follow_the_state_of_the_node() {
    if support::lacks(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let (_server, address) = serve(&lab);
    let menus = [format!("pxelinux.cfg/01-{NODE0}"), format!("grub/grub.cfg-01-{NODE0}")];
    let text = |path: &str| {
        let got = curl(&address, path, &[]);
        assert!(got.status.success(), "{path}: {:?}", support::spoken_lines(&got));
        String::from_utf8(got.stdout).unwrap()
    };
    for menu in &menus {
        assert!(!text(menu).contains("vmlinuz"), "{menu} of a node that is not armed");
    }
    lab.arm(&["node0"]);
    for menu in &menus {
        let text = text(menu);
        assert!(word(&text, "nodeforge.grant").is_some(), "{menu}: {text}");
    }
}

#[test]
fn nothing_but_the_boot_tree_is_read_and_nothing_is_written() {
    if support::lacks(&["curl", "tftp"]) {
        return;
    }
    let lab = Lab::new();
    let (server, address) = serve(&lab);
    for path in [
        "no-such-file",
        "../manifest.json",
        "..%2fmanifest.json",
        "../secret/node0.tar.gz",
        "secret/node0.tar.gz",
        "/etc/passwd",
        &format!("pxelinux.cfg/01-{STRANGER}"),
    ] {
        let got = curl(&address, path, &["--path-as-is"]);
        // curl's exit codes for what a TFTP server does not find, and refuses.
        assert!(matches!(got.status.code(), Some(68 | 69)), "{path}: {:?}", got);
        assert_eq!(got.stdout, b"", "{path}");
    }
    fs::write(lab.path().join("boot.ipxe"), "mine").unwrap();
    let upload = lab.path().join("boot.ipxe").display().to_string();
    let got = curl(&address, "boot.ipxe", &["--upload-file", &upload]);
    assert!(!got.status.success());
    let kept = curl(&address, "boot.ipxe", &[]).stdout;
    assert!(kept.starts_with(b"#!ipxe"));
    assert!(server.said().contains("this server is read-only"), "{}", server.said());
}

#[test]
fn a_client_that_loses_packets_and_says_things_twice_gets_each_block_once() {
    let lab = Lab::new();
    let bytes = lab.add_large_file(1200);
    let (_server, address) = serve(&lab);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = b"\0\x01large.bin\0octet\0";
    client.send_to(request, &address).unwrap();
    let mut packet = [0; 600];
    let mut receive = || {
        let (length, from) = client.recv_from(&mut packet).unwrap();
        (packet[..length].to_vec(), from)
    };
    let (first, transfer) = receive();
    assert_eq!(first[..4], [0, 3, 0, 1]);
    // What a client says that believes that its request was lost: the block comes again, of
    // the transfer that runs, and no second transfer begins.
    client.send_to(request, &address).unwrap();
    let (again, from) = receive();
    assert_eq!((&again, from), (&first, transfer));
    let mut got = first[4..].to_vec();
    for number in 1..=3_u8 {
        let acknowledgement = [0, 4, 0, number];
        for _ in 0..3 {
            client.send_to(&acknowledgement, transfer).unwrap();
        }
        if number < 3 {
            let (block, from) = receive();
            assert_eq!((&block[..4], from), (&[0, 3, 0, number + 1][..], transfer));
            got.extend(&block[4..]);
        }
    }
    assert!(got == bytes);
    // Had the acknowledgements that came twice been answered, blocks would wait here.
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut packet).is_err());
}
