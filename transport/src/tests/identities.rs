//! Who is let in: every wrong certificate and greeting is refused by name, counted, and a good peer works afterwards.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto as quic;
use quinn_proto::crypto::rustls::QuicClientConfig;

use super::net::{CLUSTER, FAIR, Net, authority, config, config_with, peer, tls, wall};
use crate::greeting::Greeting;
use crate::{
    Config, ConfigError, DevelopmentAuthority, EphemeralAuthority, Event, Identity, PeerId, Refusal, Tls,
    TlsError, TlsFiles, TlsPem,
};

fn good(net: &mut Net, node: u64) {
    net.join(node, config_with(tls(node), 555, &[1, node]));
    net.connect(1, node);
}

/// Node 1 with peers 2 and 3; `wrong` takes node 2's place and dials. Returns the reasons at both ends.
fn refused_by_acceptor(
    mut wrong: Config,
    tamper: impl FnOnce(&mut crate::Transport),
) -> (Refusal, Vec<Refusal>) {
    let mut net = Net::new(1, FAIR);
    let mut own = config(1, &[2, 3]);
    // Node 1 keeps quiet: the other side dials.
    own.peers.iter_mut().for_each(|peer| peer.address = super::net::address(99));
    net.join(1, own);
    wrong.peers = vec![peer(1)];
    wrong.dial_delay = Duration::ZERO;
    net.join(2, wrong);
    tamper(net.transport(2));
    net.until(Duration::from_secs(2), "refused", |net| net.transport(1).stats().refused_total() > 0);
    let reason = net.node(1).events.iter().find_map(|event| match event {
        Event::Refused { reason, .. } => Some(*reason),
        _ => None,
    });
    let reason = reason.expect("an event goes with the count");
    assert!(net.transport(1).stats().refused(reason) > 0);
    assert!(!net.transport(1).is_connected(PeerId(2)));
    net.run(Duration::from_millis(200));
    let told = net.node(2).events.iter().filter_map(|event| match event {
        Event::Refused { reason, .. } => Some(*reason),
        _ => None,
    });
    let told = told.collect();
    assert_eq!(net.node(1).count(|event| matches!(event, Event::Connected { .. })), 0);
    // A node 2 with the right papers is welcome at the same address.
    let now = net.now;
    net.transport(1).set_peers(now, &[peer(2), peer(3)]).expect("sound");
    good(&mut net, 3);
    good(&mut net, 2);
    (reason, told)
}

#[test]
fn another_authority_is_refused() {
    let other = EphemeralAuthority::new(CLUSTER).expect("randomness");
    let wrong = config_with(other.issue(PeerId(2)).expect("randomness"), 1, &[1]);
    // The impostor does not trust node 1 either; it is made to, so that node 1 gets to judge.
    let (reason, told) = refused_by_acceptor(wrong, |transport| {
        let mut client = Tls::client(&tls(2), &Arc::default()).expect("sound");
        let key = rustls::sign::CertifiedKey::from_der(
            other_chain(&other),
            other_key(&other),
            &rustls::crypto::ring::default_provider(),
        );
        client.client_auth_cert_resolver =
            Arc::new(rustls::sign::SingleCertAndKey::from(key.expect("a pair")));
        replace_client(transport, client);
    });
    assert_eq!((reason, told.first()), (Refusal::UntrustedCertificate, Some(&Refusal::ByPeer)));
}

fn other_chain(authority: &EphemeralAuthority) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    PAIR.with(|pair| pair.get_or_init(|| pair_of(authority)).0.clone())
}

fn other_key(authority: &EphemeralAuthority) -> rustls::pki_types::PrivateKeyDer<'static> {
    PAIR.with(|pair| pair.get_or_init(|| pair_of(authority)).1.clone_key())
}

type Pair = (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

thread_local! {
    static PAIR: std::cell::OnceCell<Pair> = const { std::cell::OnceCell::new() };
}

fn pair_of(authority: &EphemeralAuthority) -> Pair {
    use rustls::pki_types::pem::PemObject as _;
    let identity = Identity { cluster: CLUSTER, node: PeerId(2) };
    let (certificate, key) = authority.sign(identity, |_| ()).expect("randomness");
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    (vec![certificate], rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"))
}

/// Gives a transport another TLS for its dials, at the right wall-clock time.
fn replace_client(transport: &mut crate::Transport, mut client: rustls::ClientConfig) {
    #[derive(Debug)]
    struct Fixed;
    impl rustls::time_provider::TimeProvider for Fixed {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            let since = wall().duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
        }
    }
    client.time_provider = Arc::new(Fixed);
    let crypto = QuicClientConfig::try_from(client).expect("TLS 1.3");
    transport.client = quic::ClientConfig::new(Arc::new(crypto));
}

#[test]
fn a_node_that_is_no_peer_is_refused() {
    let (reason, told) = refused_by_acceptor(config_with(tls(9), 1, &[1]), |_| ());
    assert_eq!((reason, told.first()), (Refusal::NotAPeer, Some(&Refusal::ByPeer)));
}

#[test]
fn another_cluster_is_refused() {
    let identity = Identity { cluster: 0xBAD, node: PeerId(2) };
    let (certificate, key) = authority().sign(identity, |_| ()).expect("randomness");
    let pem = TlsPem {
        authority: authority().pem().as_bytes(),
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
    };
    let wrong = config_with(Tls::from_pem(&pem, identity, wall()).expect("sound"), 1, &[1]);
    let (reason, _) = refused_by_acceptor(wrong.clone(), |transport| transport.config.cluster = CLUSTER);
    assert_eq!(reason, Refusal::WrongName);
    // Left alone, the stranger itself finds that node 1 is not who it looks for.
    let (reason, told) = refused_by_acceptor(wrong, |_| ());
    assert_eq!((reason, told.first()), (Refusal::ByPeer, Some(&Refusal::WrongName)));
}

#[test]
fn the_wrong_node_at_an_address_is_refused() {
    let mut net = Net::new(2, FAIR);
    net.join(1, config(1, &[2, 3]));
    net.nodes.clear();
    let mut impostor = config(3, &[]);
    impostor.peers = vec![peer(1)];
    impostor.dial_delay = Duration::from_secs(100);
    net.join(2, impostor);
    let mut own = config(1, &[2]);
    own.reconnect_max = Duration::from_secs(1);
    net.join(1, own);
    net.until(Duration::from_secs(2), "refused", |net| {
        net.transport(1).stats().refused(Refusal::WrongName) > 0
    });
    let refusal = net.node(1).events[0].clone();
    let expected =
        Event::Refused { from: super::net::address(2), peer: Some(PeerId(2)), reason: Refusal::WrongName };
    assert_eq!(refusal, expected);
    good(&mut net, 2);
}

/// A certificate that names two nodes may be used by either, but not for the other one's place.
#[test]
fn a_node_with_two_names_answers_for_the_one_that_was_dialed() {
    let identity = Identity { cluster: CLUSTER, node: PeerId(3) };
    let second = Identity { node: PeerId(2), ..identity }.to_string();
    let (certificate, key) = authority()
        .sign(identity, |params| {
            params.subject_alt_names.push(rcgen::SanType::DnsName(second.try_into().expect("ASCII")));
        })
        .expect("randomness");
    let authority = authority().pem().as_bytes();
    let pem = TlsPem { authority, certificate: certificate.as_bytes(), key: key.as_bytes() };
    let mut both = config_with(Tls::from_pem(&pem, identity, wall()).expect("sound"), 1, &[1]);
    both.dial_delay = Duration::from_secs(100);
    let mut net = Net::new(6, FAIR);
    net.join(2, both);
    net.join(1, config(1, &[2, 3]));
    net.until(Duration::from_secs(2), "refused", |net| {
        net.transport(1).stats().refused(Refusal::WrongNode) > 0
    });
    assert!(!net.transport(1).is_connected(PeerId(2)) && !net.transport(1).is_connected(PeerId(3)));
    good(&mut net, 2);
}

#[test]
fn an_expired_certificate_is_refused_in_the_handshake() {
    for (from, to, reason) in
        [(1975, 2026, Refusal::ExpiredCertificate), (2028, 4000, Refusal::ExpiredCertificate)]
    {
        let identity = Identity { cluster: CLUSTER, node: PeerId(2) };
        let (certificate, key) = authority()
            .sign(identity, |params| {
                params.not_before = rcgen::date_time_ymd(from, 1, 1);
                params.not_after = rcgen::date_time_ymd(to, 1, 1);
            })
            .expect("randomness");
        let pem = TlsPem {
            authority: authority().pem().as_bytes(),
            certificate: certificate.as_bytes(),
            key: key.as_bytes(),
        };
        let year =
            |year: u64| std::time::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600 + 86_400 * 30);
        let valid_then = if from < 2000 { year(2000) } else { year(2030) };
        let wrong = config_with(Tls::from_pem(&pem, identity, valid_then).expect("valid then"), 1, &[1]);
        let (found, _) = refused_by_acceptor(wrong, |_| ());
        assert_eq!(found, reason);
        let now = Tls::from_pem(&pem, identity, wall()).expect_err("not valid now");
        match (from, now) {
            (1975, TlsError::Expired { .. }) | (2028, TlsError::NotYetValid { .. }) => {}
            (_, other) => panic!("{other}"),
        }
    }
}

#[test]
fn no_certificate_and_no_alpn_are_refused() {
    let anonymous = |alpn: &[u8]| {
        let mut client = Tls::client(&tls(2), &Arc::default()).expect("sound");
        if alpn == crate::tls::ALPN {
            client.client_auth_cert_resolver = Arc::new(Nobody);
        }
        client.alpn_protocols = vec![alpn.to_vec()];
        client
    };
    let (reason, _) = refused_by_acceptor(config(2, &[1]), |transport| {
        replace_client(transport, anonymous(crate::tls::ALPN));
    });
    assert_eq!(reason, Refusal::NoCertificate);
    let (reason, _) =
        refused_by_acceptor(config(2, &[1]), |transport| replace_client(transport, anonymous(b"h3")));
    assert_eq!(reason, Refusal::WrongProtocol);
}

#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_greeting_must_match_the_certificate() {
    let greet = |cluster, node, change: fn(&mut Vec<u8>)| {
        let greeting = Greeting { cluster, node: PeerId(node), incarnation: 1 };
        let mut bytes = greeting.encode().to_vec();
        change(&mut bytes);
        let (reason, told) =
            refused_by_acceptor(config(2, &[1]), |transport| transport.greeting = bytes.clone().into());
        assert_eq!(told.first(), Some(&Refusal::ByPeer));
        reason
    };
    assert_eq!(greet(CLUSTER, 3, |_| ()), Refusal::WrongNode, "a peer's name, but not this certificate's");
    assert_eq!(greet(CLUSTER, 1, |_| ()), Refusal::WrongNode, "our own name");
    assert_eq!(greet(CLUSTER + 1, 2, |_| ()), Refusal::WrongCluster);
    assert_eq!(greet(CLUSTER, 2, |bytes| bytes[0] = 0), Refusal::WrongVersion);
    assert_eq!(greet(CLUSTER, 2, |bytes| bytes[0] = 2), Refusal::WrongVersion);
    assert_eq!(greet(CLUSTER, 2, |bytes| bytes.push(0)), Refusal::BadGreeting);
    assert_eq!(greet(CLUSTER, 2, |bytes| bytes.clear()), Refusal::BadGreeting);
}

#[test]
fn a_removed_peer_is_refused_even_in_the_middle_of_its_handshake() {
    let mut net = Net::new(3, FAIR);
    net.join(1, config(1, &[2]));
    net.join(2, config(2, &[1]));
    while net.transport(1).links.iter().flatten().all(|link| link.connection.is_handshaking()) {
        assert!(net.step());
    }
    let now = net.now;
    net.transport(1).set_peers(now, &[]).expect("sound");
    net.run(Duration::from_secs(2));
    assert!(!net.transport(1).is_connected(PeerId(2)) && !net.transport(2).is_connected(PeerId(1)));
    assert!(net.transport(1).stats().refused(Refusal::NotAPeer) > 0, "node 2 kept knocking");
}

#[test]
fn a_configuration_must_fit_its_certificate_and_itself() {
    let now = std::time::Instant::now();
    let refused = |change: fn(&mut Config)| {
        let mut config = config(1, &[2]);
        change(&mut config);
        crate::Transport::new(config, now).expect_err("refused")
    };
    assert!(matches!(refused(|c| c.node = PeerId(2)), ConfigError::Certificate { .. }));
    assert!(matches!(refused(|c| c.cluster += 1), ConfigError::Certificate { .. }));
    assert_eq!(refused(|c| c.peers.push(peer(2))), ConfigError::DuplicatePeer(PeerId(2)));
    assert!(matches!(refused(|c| c.peers[0].address.set_port(0)), ConfigError::Address { .. }));
    assert!(matches!(refused(|c| c.queue_bytes = c.max_message - 1), ConfigError::Limits(_)));
    assert!(matches!(refused(|c| c.keep_alive = c.idle_timeout), ConfigError::Limits(_)));
    assert!(matches!(refused(|c| c.max_datagram = 1000), ConfigError::Limits(_)));
}

#[test]
fn files_are_refused_with_their_name_and_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("own file");
        }
        path
    };
    let identity = Identity { cluster: CLUSTER, node: PeerId(1) };
    let (certificate, key) = authority().sign(identity, |_| ()).expect("randomness");
    let (_, other_key) = authority().sign(identity, |_| ()).expect("randomness");
    let stranger = EphemeralAuthority::new(CLUSTER).expect("randomness");
    let files = TlsFiles {
        authority: write("ca.pem", authority().pem(), 0o644),
        certificate: write("node.pem", &certificate, 0o644),
        key: write("node.key", &key, 0o600),
    };
    Tls::from_files(&files, identity, wall()).expect("sound");
    let refused = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = files.clone();
        change(&mut files);
        let error = Tls::from_files(&files, identity, wall()).expect_err("refused");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "names the file: {error}");
        error
    };
    let missing = refused(&|files| files.key = dir.path().join("absent"));
    assert!(matches!(missing, TlsError::Missing { .. }), "{missing}");
    let directory = refused(&|files| files.authority = dir.path().into());
    assert!(matches!(directory, TlsError::Unreadable { .. }), "{directory}");
    let noise = write("noise", "not PEM at all", 0o600);
    for part in 0..3 {
        let error = refused(&|files| {
            *[&mut files.authority, &mut files.certificate, &mut files.key][part] = noise.clone();
        });
        assert!(matches!(error, TlsError::NotPem { .. }), "{part}: {error}");
    }
    let swapped = refused(&|files| files.key = write("other.key", &other_key, 0o600));
    assert!(matches!(swapped, TlsError::KeyMismatch { .. }), "{swapped}");
    let foreign = refused(&|files| files.authority = write("other.pem", stranger.pem(), 0o644));
    assert!(matches!(foreign, TlsError::OtherAuthority { .. }), "{foreign}");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = refused(&|files| files.key = write("encrypted", encrypted, 0o600));
    assert!(matches!(encrypted, TlsError::EncryptedKey { .. }), "{encrypted}");
    #[cfg(unix)]
    for mode in [0o644, 0o640, 0o604] {
        let open = refused(&|files| files.key = write("open.key", &key, mode));
        assert!(matches!(open, TlsError::KeyReadable { mode: found, .. } if found == mode), "{open}");
    }
    for wrong in [Identity { node: PeerId(2), ..identity }, Identity { cluster: 1, ..identity }] {
        let error = Tls::from_files(&files, wrong, wall()).expect_err("another's");
        assert!(matches!(error, TlsError::WrongName { .. }), "{error}");
        assert!(error.to_string().contains(&identity.to_string()), "{error}");
    }
}

/// Many processes open the same empty directory at once, here threads: all get certificates of one authority.
#[test]
fn a_development_authority_is_made_once() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("certs");
        let start = std::sync::Barrier::new(8);
        let all: Vec<Tls> = std::thread::scope(|scope| {
            let issue = |node: u64| {
                let (path, start) = (&path, &start);
                move || {
                    start.wait();
                    let authority = DevelopmentAuthority::open_or_create(path, CLUSTER).expect("opened");
                    authority.issue(PeerId(node / 2 + 1)).expect("issued")
                }
            };
            let threads: Vec<_> = (0..8).map(|node| scope.spawn(issue(node))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(all[0].secret(), all[1].secret(), "the same node gets the same key");
        let mut net = Net::new(4, FAIR);
        net.join(1, config_with(all[0].clone(), 1, &[1, 2]));
        net.join(2, config_with(all[2].clone(), 2, &[1, 2]));
        net.connect(1, 2);
        let names: Vec<_> =
            std::fs::read_dir(&path).expect("listed").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(names.len(), 6, "no temporary file stays: {names:?}");
        #[cfg(unix)]
        for name in names.iter().filter(|name| !name.ends_with("authority.pem")) {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(name.metadata().expect("exists").permissions().mode() & 0o777, 0o600, "{name:?}");
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    DevelopmentAuthority::open_or_create(dir.path(), 1).expect("made").issue(PeerId(1)).expect("issued");
    let error = DevelopmentAuthority::open_or_create(dir.path(), 2).expect("opened").issue(PeerId(1));
    assert!(error.is_err(), "a directory belongs to one cluster");
}

#[test]
fn a_certificate_is_rotated_without_a_pause() {
    let mut net = Net::cluster(5, FAIR, 2);
    net.connect(1, 2);
    let now = net.now;
    let foreign = net.transport(1).set_tls(now, tls(2)).expect_err("another node's");
    assert!(matches!(foreign, ConfigError::Certificate { .. }));
    let fresh = authority().issue(PeerId(1)).expect("randomness");
    assert_ne!(fresh.secret(), tls(1).secret());
    net.transport(1).set_tls(now, fresh).expect("its own");
    net.run(Duration::from_secs(2));
    assert_eq!(net.node(1).disconnects(), []);
    // The next connection uses the new one, whoever dials.
    net.join(2, config_with(tls(2), 3, &[1]));
    net.connect(1, 2);
}
