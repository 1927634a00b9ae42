//! Certificates of an authority of the tests' own, in files.

use std::path::PathBuf;

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use outboxd::local::Sandbox;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustix::process::Signal;

/// An authority, and the folder in which its certificate (`ca.pem`) and those that it has signed are.
pub struct Authority {
    folder: Sandbox,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Certified {
    pub certificate: String,
    pub key: String,
    /// Both in one file, as Kafka wants them.
    pub both: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = Sandbox::create(name, None, Signal::KILL).expect("a folder for certificates");
        folder.write("ca.pem", &issuer.pem()).expect("ca.pem");
        Authority { folder, issuer }
    }

    /// What whoever trusts it is given.
    pub fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// A certificate for these hosts, or for a client if there are none. A second one of a name takes the place of the
    /// first.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Certified {
        self.sign(name, params(name, hosts))
    }

    /// The key of a certificate in another file, for whoever knows the password.
    pub fn encrypt_key(&self, name: &str, of: &Certified, password: &str) -> String {
        let pem = std::fs::read(&of.key).expect("a key");
        let key = PKey::private_key_from_pem(&pem).expect("a key");
        let encrypted =
            key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), password.as_bytes());
        let encrypted = String::from_utf8(encrypted.expect("an encrypted key"));
        self.write(&format!("{name}.key.pem"), &encrypted.expect("PEM"))
    }

    /// One whose time is over.
    pub fn certify_long_ago(&self, name: &str, hosts: &[&str]) -> Certified {
        let mut params = params(name, hosts);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(name, params)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        self.write(&format!("{name}.both.pem"), &format!("{key}{certificate}"));
        self.write(&format!("{name}.pem"), &certificate);
        self.write(&format!("{name}.key.pem"), &key);
        self.files(name)
    }

    /// Where a certificate of this name is.
    pub fn files(&self, name: &str) -> Certified {
        Certified {
            both: self.path(&format!("{name}.both.pem")),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key.pem")),
        }
    }

    /// Another file in the folder.
    pub fn write(&self, name: &str, content: &str) -> String {
        self.folder.write(name, content).expect(name);
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.directory().join(name);
        path.display().to_string()
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
