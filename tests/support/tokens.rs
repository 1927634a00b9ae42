//! An endpoint that gives tokens for client credentials, by HTTPS, and signs them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::certificates::Certified;
use super::secured::HOST;

/// What tokens are for.
pub const AUDIENCE: &str = "kafka";

pub const CLIENT: &str = "relay";

/// How much longer than it says a token is valid: the client looks for another once a second, and a broker renews no
/// session twice within one.
pub const GRACE: Duration = Duration::from_secs(3);

/// Signs tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    pkcs8: Vec<u8>,
    point: Vec<u8>,
}

impl TokenIssuer {
    pub fn new() -> TokenIssuer {
        let key = KeyPair::generate().expect("a key");
        TokenIssuer {
            pkcs8: key.serialize_der(),
            // 4, then both coordinates of 32 bytes.
            point: key.der_bytes().to_vec(),
        }
    }

    /// For whoever verifies the tokens: a set of JSON Web Keys.
    pub fn public_keys(&self) -> String {
        let (x, y) = self.point[1..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y});
        json!({"keys": [key]}).to_string()
    }

    fn token(&self, lifetime: Duration) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        let claims = json!({
            "sub": CLIENT,
            "aud": AUDIENCE,
            "scope": "kafka",
            "iat": now.as_secs(),
            "exp": (now + lifetime + GRACE).as_secs(),
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({"alg": "ES256", "kid": "1"})),
            part(claims)
        );
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8, &random);
        let signature = key.expect("a key").sign(&random, signed.as_bytes());
        format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature.expect("a signature"))
        )
    }
}

/// A server for as long as the process lives.
pub struct TokenEndpoint {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    issuer: TokenIssuer,
    lifetime: Duration,
    /// What a client has to know.
    secret: Mutex<String>,
    given: AtomicUsize,
    /// The last one that was given.
    last: Mutex<String>,
}

impl TokenEndpoint {
    /// Gives tokens with this lifetime to whoever knows the secret.
    pub fn start(
        issuer: &TokenIssuer,
        certified: &Certified,
        lifetime: Duration,
        secret: &str,
    ) -> TokenEndpoint {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate =
            CertificateDer::from_pem_file(&certified.certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&certified.key).expect("a key");
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate with its key");
        let listener = TcpListener::bind((HOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            issuer: issuer.clone(),
            lifetime,
            secret: Mutex::new(secret.to_owned()),
            given: AtomicUsize::new(0),
            last: Mutex::default(),
        });
        let (serving, tls) = (Arc::clone(&shared), Arc::new(tls));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no matter.
                let _ = serving.serve(stream, &tls);
            }
        });
        TokenEndpoint { port, shared }
    }

    pub fn url(&self) -> String {
        format!("https://{HOST}:{}/token", self.port)
    }

    /// How many tokens were given.
    pub fn given(&self) -> usize {
        self.shared.given.load(Ordering::Relaxed)
    }

    /// The last token.
    pub fn last(&self) -> String {
        self.shared.last.lock().expect("the token").clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, tls: &Arc<ServerConfig>) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let connection = ServerConnection::new(Arc::clone(tls))?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let (mut length, mut credentials) = (0, String::new());
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse()?,
                "authorization" => credentials = value.trim_start_matches("Basic ").to_owned(),
                _ => {}
            }
        }
        let mut form = vec![0; length];
        stream.read_exact(&mut form)?;
        let secret = self.secret.lock().expect("the secret").clone();
        let is_known = credentials == STANDARD.encode(format!("{CLIENT}:{secret}"));
        let is_asked = String::from_utf8_lossy(&form).contains("grant_type=client_credentials");
        let (status, body) = match is_known && is_asked {
            true => {
                let token = self.issuer.token(self.lifetime);
                self.given.fetch_add(1, Ordering::Relaxed);
                token.clone_into(&mut self.last.lock().expect("the token"));
                let seconds = self.lifetime.as_secs();
                (
                    "200 OK",
                    json!({"access_token": token, "token_type": "Bearer", "expires_in": seconds}),
                )
            }
            false => {
                let prose = format!("{credentials} is not known here");
                (
                    "401 Unauthorized",
                    json!({"error": "invalid_client", "error_description": prose}),
                )
            }
        };
        let body = body.to_string();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )?;
        stream.get_mut().flush()?;
        Ok(())
    }
}
