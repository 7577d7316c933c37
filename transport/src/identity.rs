//! Who a certificate says its holder is.
//!
//! A node's certificate carries one DNS name, `n<node>.c<cluster as 32 hex digits>.d-engine`. The dialer asks TLS for
//! exactly that name; the acceptor asks whether the certificate carries the name of one of its peers. So a sound
//! certificate of another cluster, or of a node that is not a peer, ends in the handshake, before a byte of this protocol.

use std::fmt;

use rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

/// A node of the cluster as the transport knows it. Zero is not a valid identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node within its cluster: what a certificate proves. Displayed as the certificate's DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: PeerId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.c{:032x}.d-engine", self.node, self.cluster)
    }
}

impl Identity {
    /// The name as TLS wants it.
    pub(crate) fn server_name(self) -> ServerName<'static> {
        ServerName::try_from(self.to_string())
            .expect("letters, digits and hyphens in labels under 64 characters")
    }

    /// Whether `certificate` carries this identity. Says nothing about who signed it.
    pub(crate) fn is_named_by(self, certificate: &CertificateDer<'_>) -> bool {
        EndEntityCert::try_from(certificate)
            .is_ok_and(|end| end.verify_is_valid_for_subject_name(&self.server_name()).is_ok())
    }

    /// The identities that `certificate` carries, for messages and for telling one refusal from another.
    pub(crate) fn all_in(certificate: &CertificateDer<'_>) -> Vec<Self> {
        let Ok(end) = EndEntityCert::try_from(certificate) else { return Vec::new() };
        end.valid_dns_names().filter_map(Self::parse).collect()
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (node, rest) = name.strip_prefix('n')?.split_once(".c")?;
        let cluster = u128::from_str_radix(rest.strip_suffix(".d-engine")?, 16).ok()?;
        let identity = Self { cluster, node: PeerId(node.parse().ok()?) };
        (identity.to_string() == name).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is() {
        let identity = Identity { cluster: 0xabc, node: PeerId(17) };
        let name = identity.to_string();
        assert_eq!(name, "n17.c00000000000000000000000000000abc.d-engine");
        assert_eq!(Identity::parse(&name), Some(identity));
        let _ = Identity { cluster: u128::MAX, node: PeerId(u64::MAX) }.server_name();
        for wrong in
            ["n17", "n017.c00000000000000000000000000000abc.d-engine", "n17.cabc.d-engine", "*.d-engine", ""]
        {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
