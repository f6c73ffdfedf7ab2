//! One pair of files: chain and key.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, time::ASN1Time};

use super::{Certificate, FILE_BYTES_MAX};
use crate::tls;

/// # Errors
/// Which file is wrong, in what, and what to do.
pub(super) fn pair(chain_file: &Path, key_file: &Path) -> Result<Certificate, String> {
    let chain = CertificateDer::pem_slice_iter(&read(chain_file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| format!("{}: no PEM: {cause}", chain_file.display()))?;
    let Some(leaf) = chain.first() else {
        return Err(format!("{}: no certificate in it", chain_file.display()));
    };
    let (names, not_before, not_after) =
        facts(leaf).map_err(|cause| format!("{}: {cause}", chain_file.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|cause| format!("{}: no private key: {cause}", key_file.display()))?;
    let key = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|cause| {
        format!(
            "{} and {} do not belong together or cannot be used: {cause}",
            chain_file.display(),
            key_file.display()
        )
    })?;
    let key = Arc::new(key);
    let server =
        tls::config(key.clone()).map_err(|cause| format!("{}: {cause}", chain_file.display()))?;
    Ok(Certificate {
        file: chain_file.to_owned(),
        names,
        not_before,
        not_after,
        key,
        server: server.into(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |cause| format!("{}: {cause}", path.display());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "{}: {size} bytes, at most {FILE_BYTES_MAX} are read",
            path.display()
        ));
    }
    fs::read(path).map_err(failed)
}

/// Names, and from when up to when it is valid.
fn facts(leaf: &[u8]) -> Result<(Vec<String>, Timestamp, Timestamp), String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|cause| format!("no X.509 certificate: {cause}"))?;
    let names = names(&certificate)?;
    if names.is_empty() {
        return Err(
            "it is for no name (no subject alternative name): clients would refuse it".to_owned(),
        );
    }
    let validity = certificate.validity();
    Ok((names, time(validity.not_before)?, time(validity.not_after)?))
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|cause| format!("bad subject alternative names: {cause}"))?;
    let Some(extension) = extension else {
        return Ok(Vec::new());
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    Ok(extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

fn time(time: ASN1Time) -> Result<Timestamp, String> {
    Timestamp::from_second(time.timestamp())
        .map_err(|cause| format!("bad time of validity: {cause}"))
}
