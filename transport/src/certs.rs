//! Certificates for development and tests: an authority in a directory, and a node's certificate for the asking.
//!
//! Several processes may open the same directory at once: what is created is first written whole under a name of its own
//! and then linked to its final name, which one of them wins; the others take the winner's. Keys are readable by their
//! owner only. The certificates are valid from 1975 to 4096: whoever can read the directory is a member for ever, so this is no
//! substitute for an authority in production.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use crate::PeerId;
use crate::identity::Identity;
use crate::tls::{Tls, TlsError, TlsFiles, TlsPem};

/// Some moment between 1975 and 4096: no clock needs to be read to know that our own certificates are valid.
fn within_validity() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1 << 30)
}

/// An authority that lives in a directory and signs for anyone who can read it.
pub struct DevelopmentAuthority {
    dir: PathBuf,
    cluster: u128,
    key: KeyPair,
}

impl std::fmt::Debug for DevelopmentAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DevelopmentAuthority({})", self.dir.display())
    }
}

impl DevelopmentAuthority {
    /// Opens the authority of `cluster` in `dir`, creating both where they do not exist.
    ///
    /// # Errors
    /// [`CertsError`] names the file.
    pub fn open_or_create(dir: impl Into<PathBuf>, cluster: u128) -> Result<Self, CertsError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|e| CertsError::io(&dir, &e))?;
        // The key decides who won the race; the certificate follows from it (its signature may differ between two
        // writers, its content does not).
        let path = dir.join("authority.key");
        if !path.exists() {
            let key = KeyPair::generate().map_err(|e| CertsError::Generate(e.to_string()))?;
            publish(&path, key.serialize_pem().as_bytes(), Access::OwnerOnly)?;
        }
        let key = KeyPair::from_pem(&read(&path)?)
            .map_err(|e| CertsError::Unusable { file: path.display().to_string(), reason: e.to_string() })?;
        let authority = Self { dir, cluster, key };
        let certificate = authority.authority_file();
        if !certificate.exists() {
            let signed = authority_params(cluster)
                .self_signed(&authority.key)
                .map_err(|e| CertsError::Generate(e.to_string()))?;
            publish(&certificate, signed.pem().as_bytes(), Access::Everyone)?;
        }
        Ok(authority)
    }

    /// The certificate of `node`, from this directory or newly signed. The same at every call: keys that must survive a
    /// restart are derived from it.
    ///
    /// # Errors
    /// [`CertsError`] names the file.
    pub fn issue(&self, node: PeerId) -> Result<Tls, CertsError> {
        let identity = Identity { cluster: self.cluster, node };
        // One file, so that key and certificate of two racing writers never mix.
        let bundle = self.dir.join(format!("node-{node}.pem"));
        if !bundle.exists() {
            let key = KeyPair::generate().map_err(|e| CertsError::Generate(e.to_string()))?;
            let issuer = Issuer::new(authority_params(self.cluster), &self.key);
            let signed = node_params(identity)
                .and_then(|params| params.signed_by(&key, &issuer))
                .map_err(|e| CertsError::Generate(e.to_string()))?;
            publish(&bundle, (signed.pem() + &key.serialize_pem()).as_bytes(), Access::OwnerOnly)?;
        }
        Ok(Tls::from_files(&self.files(node), identity, within_validity())?)
    }

    /// Where the certificate of `node` lies once it was issued, for configuration files.
    #[must_use]
    pub fn files(&self, node: PeerId) -> TlsFiles {
        let bundle = self.dir.join(format!("node-{node}.pem"));
        TlsFiles { authority: self.authority_file(), certificate: bundle.clone(), key: bundle }
    }

    fn authority_file(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }
}

/// An authority that lives in memory only, for simulations and tests.
pub struct EphemeralAuthority {
    cluster: u128,
    key: KeyPair,
    pem: String,
}

impl std::fmt::Debug for EphemeralAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EphemeralAuthority({:032x})", self.cluster)
    }
}

impl EphemeralAuthority {
    /// A new authority for `cluster`.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn new(cluster: u128) -> Result<Self, CertsError> {
        let generate = |e: rcgen::Error| CertsError::Generate(e.to_string());
        let key = KeyPair::generate().map_err(generate)?;
        let pem = authority_params(cluster).self_signed(&key).map_err(generate)?.pem();
        Ok(Self { cluster, key, pem })
    }

    /// A new certificate for `node`.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn issue(&self, node: PeerId) -> Result<Tls, CertsError> {
        let identity = Identity { cluster: self.cluster, node };
        let (certificate, key) = self.sign(identity, |_| ())?;
        let pem = TlsPem {
            authority: self.pem().as_bytes(),
            certificate: certificate.as_bytes(),
            key: key.as_bytes(),
        };
        Ok(Tls::from_pem(&pem, identity, within_validity())?)
    }
}

impl EphemeralAuthority {
    /// Certificate and key of `identity`, in PEM, with whatever `change` does to them first.
    pub(crate) fn sign(
        &self,
        identity: Identity,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(String, String), CertsError> {
        let generate = |e: rcgen::Error| CertsError::Generate(e.to_string());
        let key = KeyPair::generate().map_err(generate)?;
        let issuer = Issuer::new(authority_params(self.cluster), &self.key);
        let mut params = node_params(identity).map_err(generate)?;
        change(&mut params);
        let signed = params.signed_by(&key, &issuer).map_err(generate)?;
        Ok((signed.pem(), key.serialize_pem()))
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }
}

/// The authority's own parameters: a function of the cluster, so that every process signs as the same issuer.
fn authority_params(cluster: u128) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("d-engine development authority {cluster:032x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn node_params(identity: Identity) -> Result<CertificateParams, rcgen::Error> {
    let name = identity.to_string();
    let mut params = CertificateParams::new(vec![name.clone()])?;
    params.distinguished_name = common_name(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

enum Access {
    OwnerOnly,
    Everyone,
}

/// Gives `content` the name `path` in one step, unless someone else was first.
fn publish(path: &Path, content: &[u8], access: Access) -> Result<(), CertsError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    // Process ids repeat across containers that share a directory; a random hasher's keys do not.
    let unique = RandomState::new().build_hasher().finish();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{unique:016x}.new"));
    let temporary = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(match access {
            Access::OwnerOnly => 0o600,
            Access::Everyone => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    // A hard link, unlike a rename, fails where the name is taken: the first one stays.
    let linked = written.and_then(|()| std::fs::hard_link(&temporary, path));
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| CertsError::io(path, &error)),
    }
}

fn read(path: &Path) -> Result<String, CertsError> {
    std::fs::read_to_string(path).map_err(|error| CertsError::io(path, &error))
}

/// Why development certificates could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A file or directory cannot be read or written.
    #[error("{file}: {reason}")]
    Io {
        /// The file.
        file: String,
        /// The system's words.
        reason: String,
    },
    /// The authority's key cannot be used.
    #[error("{file} does not hold a usable key: {reason}; remove the directory's content to start over")]
    Unusable {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Keys or signatures could not be made.
    #[error("a key or certificate could not be made: {0}")]
    Generate(String),
    /// What lies in the directory does not fit: another cluster's, an old authority's.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl CertsError {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { file: path.display().to_string(), reason: error.to_string() }
    }
}
