//! Whom to trust about servers: the certificates of this machine, which networks that re-sign TLS add theirs
//! to.
use crate::{Error, Hub};
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, parse_pem};

/// Longest file of certificates.
const BYTES_MAX: usize = 16 << 20;
/// Where systems keep theirs: Debian, Fedora, SUSE, Alpine and macOS.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificates in the file that was asked for (`SSL_CERT_FILE`), else in the system's, else Mozilla's
/// that are built in.
pub(crate) fn of(hub: &Hub) -> Result<RootCerts, Error> {
    if let Some(file) = &hub.roots {
        let none = || std::io::Error::other("it holds no certificate (SSL_CERT_FILE names it)");
        return read(file).ok_or_else(none).map_err(Error::io("use", file));
    }
    Ok(SYSTEM.iter().find_map(|file| read(Path::new(file))).unwrap_or(RootCerts::WebPki))
}

fn read(file: &Path) -> Option<RootCerts> {
    let file = file.canonicalize().ok()?; // systems link to where it really is
    let text = amoeba_checkpoint::read_small(&file, BYTES_MAX).ok()??;
    let certificates = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    (!certificates.is_empty()).then(|| RootCerts::from(certificates))
}
