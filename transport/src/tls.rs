//! Certificate, key and authority of a node, and the TLS 1.3 that is made of them.
//!
//! What is loaded is checked at once ([`Tls::from_files`], [`Tls::from_pem`]): readable, PEM, key and certificate belong
//! together, signed by the authority, valid now, and the right name. A [`Tls`] is therefore one that works.
//! In the handshake both sides prove themselves: the dialer asks for one name, the acceptor for that of any peer.
//! Deliberately absent: TLS 1.2, 0-RTT, session resumption (a resumed session would skip the certificate, and with it a
//! removed peer or an expired certificate), encrypted keys, plaintext.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::identity::Identity;

/// The name of the protocol inside TLS.
pub(crate) const ALPN: &[u8] = b"d-engine/1";

/// Where a node's certificate, key and authority lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate(s), PEM.
    pub authority: PathBuf,
    /// The node's certificate, followed by intermediates if any, PEM.
    pub certificate: PathBuf,
    /// The node's private key, PEM, not encrypted, readable by its owner only.
    pub key: PathBuf,
}

/// The same as text in memory.
#[derive(Clone, Copy)]
pub struct TlsPem<'a> {
    /// The authority's certificate(s).
    pub authority: &'a [u8],
    /// The node's certificate, followed by intermediates if any.
    pub certificate: &'a [u8],
    /// The node's private key.
    pub key: &'a [u8],
}

/// A node's checked certificate, key and authority.
#[derive(Clone)]
pub struct Tls {
    identity: Identity,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.identity)
    }
}

impl Tls {
    /// Loads and checks the files of node `identity` at the wall-clock time `now`.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn from_files(files: &TlsFiles, identity: Identity, now: SystemTime) -> Result<Self, TlsError> {
        let authority = read(&files.authority)?;
        let certificate = read(&files.certificate)?;
        let key = read(&files.key)?;
        private(&files.key)?;
        let names = Names {
            authority: files.authority.display().to_string(),
            certificate: files.certificate.display().to_string(),
            key: files.key.display().to_string(),
        };
        Self::checked(
            &TlsPem { authority: &authority, certificate: &certificate, key: &key },
            &names,
            identity,
            now,
        )
    }

    /// The same from text in memory.
    ///
    /// # Errors
    /// [`TlsError`] names the part and what is wrong with it.
    pub fn from_pem(pem: &TlsPem<'_>, identity: Identity, now: SystemTime) -> Result<Self, TlsError> {
        let names = Names {
            authority: "the authority".into(),
            certificate: "the certificate".into(),
            key: "the private key".into(),
        };
        Self::checked(pem, &names, identity, now)
    }

    /// Whose certificate this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn checked(
        pem: &TlsPem<'_>,
        names: &Names,
        identity: Identity,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let roots = roots(pem.authority, &names.authority)?;
        let chain = certificates(pem.certificate, &names.certificate)?;
        let key = private_key(pem.key, &names.key)?;

        let loaded = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider());
        match loaded.and_then(|pair| pair.keys_match()) {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::KeyMismatch {
                    key: names.key.clone(),
                    certificate: names.certificate.clone(),
                });
            }
            Err(error) => {
                return Err(TlsError::UnusableKey { file: names.key.clone(), reason: error.to_string() });
            }
        }
        verify(&roots, &chain, names, now)?;
        if !identity.is_named_by(&chain[0]) {
            let found =
                Identity::all_in(&chain[0]).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(TlsError::WrongName {
                file: names.certificate.clone(),
                expected: identity.to_string(),
                found: if found.is_empty() { "no node".into() } else { found },
            });
        }
        Ok(Self { identity, roots: Arc::new(roots), chain, key: Arc::new(key) })
    }

    /// The secret from which keys are derived that must survive a restart: the private key's bytes.
    pub(crate) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    pub(crate) fn client(&self, clock: &Arc<WallClock>) -> Result<rustls::ClientConfig, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|e| e.to_string())?;
        let mut config =
            rustls::ClientConfig::builder_with_details(provider(), Arc::<WallClock>::clone(clock))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| e.to_string())?
                .with_webpki_verifier(verifier)
                .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
                .map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    pub(crate) fn server(
        &self,
        clock: &Arc<WallClock>,
        peers: Vec<Identity>,
    ) -> Result<rustls::ServerConfig, String> {
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|e| e.to_string())?;
        let verifier = Arc::new(PeerVerifier { inner, cluster: self.identity.cluster, peers });
        let mut config =
            rustls::ServerConfig::builder_with_details(provider(), Arc::<WallClock>::clone(clock))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| e.to_string())?
                .with_client_cert_verifier(verifier)
                .with_single_cert(self.chain.clone(), self.key.clone_key())
                .map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the parts are called in error messages.
struct Names {
    authority: String,
    certificate: String,
    key: String,
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = || path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(TlsError::Missing { file: file() }),
        Err(error) => Err(TlsError::Unreadable { file: file(), reason: error.to_string() }),
    }
}

/// Refuses a key that others may read.
#[cfg(unix)]
fn private(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = path.display().to_string();
    let metadata = std::fs::metadata(path)
        .map_err(|error| TlsError::Unreadable { file: file.clone(), reason: error.to_string() })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TlsError::KeyReadable { file, mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong =
        |reason: String| TlsError::NotPem { file: name.to_owned(), expected: "a certificate", reason };
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no CERTIFICATE section".into()));
    }
    Ok(found)
}

fn roots(pem: &[u8], name: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, name)? {
        roots.add(certificate).map_err(|error| TlsError::NotPem {
            file: name.to_owned(),
            expected: "an authority's certificate",
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    if pem.windows(21).any(|window| window == b"ENCRYPTED PRIVATE KEY") {
        return Err(TlsError::EncryptedKey { file: name.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::NotPem {
        file: name.to_owned(),
        expected: "a private key",
        reason: error.to_string(),
    })
}

/// Chain, validity and purpose, for both roles that a node plays.
fn verify(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    names: &Names,
    now: SystemTime,
) -> Result<(), TlsError> {
    let file = || names.certificate.clone();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = UnixTime::since_unix_epoch(since);
    let end = EndEntityCert::try_from(&chain[0]).map_err(|error| TlsError::NotPem {
        file: file(),
        expected: "a certificate",
        reason: error.to_string(),
    })?;
    let algorithms = provider().signature_verification_algorithms.all;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        let verdict = end.verify_for_usage(algorithms, &roots.roots, &chain[1..], time, usage, None, None);
        match verdict {
            Ok(_) => {}
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                return Err(TlsError::Expired { file: file(), since: not_after.as_secs() });
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
                return Err(TlsError::NotYetValid { file: file(), from: not_before.as_secs() });
            }
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
                return Err(TlsError::OtherAuthority { file: file(), authority: names.authority.clone() });
            }
            Err(error) => return Err(TlsError::Unusable { file: file(), reason: error.to_string() }),
        }
    }
    Ok(())
}

/// The acceptor's question: a sound certificate, and one of a peer.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: u128,
    peers: Vec<Identity>,
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.peers.iter().any(|peer| peer.is_named_by(end_entity)) {
            return Ok(verified);
        }
        // The two verdicts become different TLS alerts, which is how both sides tell them apart.
        let ours = Identity::all_in(end_entity).iter().any(|identity| identity.cluster == self.cluster);
        Err(if ours {
            CertificateError::ApplicationVerificationFailure.into()
        } else {
            CertificateError::NotValidForName.into()
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The wall clock that TLS and Retry tokens see: handed in, never read. Whole seconds since 1970 suffice for both.
#[derive(Debug, Default)]
pub(crate) struct WallClock(AtomicU64);

impl WallClock {
    pub(crate) fn set(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.0.store(since.as_secs(), Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.now()))
    }
}

impl quinn_proto::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + WallClock::now(self)
    }
}

/// What is wrong with a certificate, key or authority. Names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say what the fields are
pub enum TlsError {
    /// The file does not exist.
    #[error("{file} does not exist")]
    Missing { file: String },
    /// The file cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    /// The content is not what was expected.
    #[error("{file} does not hold {expected} in PEM form: {reason}")]
    NotPem { file: String, expected: &'static str, reason: String },
    /// The key needs a password.
    #[error("{file} holds an encrypted private key: store it decrypted, readable by its owner only")]
    EncryptedKey { file: String },
    /// Others may read the key.
    #[error("{file} holds a private key and may be read by others (mode {mode:04o}): chmod 600 it")]
    KeyReadable { file: String, mode: u32 },
    /// The key cannot be used.
    #[error("{file} holds a private key that cannot be used: {reason}")]
    UnusableKey { file: String, reason: String },
    /// Key and certificate do not belong together.
    #[error("the private key in {key} is not the one of the certificate in {certificate}")]
    KeyMismatch { key: String, certificate: String },
    /// The certificate has expired.
    #[error(
        "the certificate in {file} (or its authority's) expired at {since} s since 1970: issue a new one"
    )]
    Expired { file: String, since: u64 },
    /// The certificate is not yet valid.
    #[error(
        "the certificate in {file} is valid from {from} s since 1970 on only: check this machine's clock"
    )]
    NotYetValid { file: String, from: u64 },
    /// The certificate was not signed by the authority.
    #[error("the certificate in {file} was not signed by the authority in {authority}")]
    OtherAuthority { file: String, authority: String },
    /// The certificate is for another node or cluster.
    #[error("the certificate in {file} is for {found}, not for {expected}: every node needs its own")]
    WrongName { file: String, expected: String, found: String },
    /// The certificate cannot be used, for another reason.
    #[error("the certificate in {file} cannot be used: {reason}")]
    Unusable { file: String, reason: String },
}
