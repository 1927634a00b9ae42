//! Access control of a real broker, without anybody logging in: whoever connects is `User:ANONYMOUS`, everything
//! is open to everyone until a rule names it, and from then on only what rules allow.
//!
//! The client that the tests have cannot make rules, so the one request is written here by hand.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a private broker is started with.
pub const PROPERTIES: [(&str, &str); 2] = [
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    ("allow.everyone.if.no.acl.found", "true"),
];

/// Kafka's numbers, <https://kafka.apache.org/41/javadoc/org/apache/kafka/common/acl/AclOperation.html>
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Describe = 8,
    DescribeConfigs = 10,
}

const TOPIC: u8 = 2;
const LITERAL: u8 = 3;
const ALLOW: u8 = 3;

const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 1;

/// Allows these operations on a topic to everyone. Returns when the cluster has noted it; a broker acts on it a
/// moment later.
pub async fn allow(bootstrap: &str, topic: &str, operations: &[Operation]) {
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    let correlation = 7_i32.to_be_bytes();
    request.extend(correlation);
    push_text(&mut request, "tests");
    request.extend((operations.len() as i32).to_be_bytes());
    for operation in operations {
        request.push(TOPIC);
        push_text(&mut request, topic);
        request.push(LITERAL);
        push_text(&mut request, "User:ANONYMOUS");
        push_text(&mut request, "*");
        request.push(*operation as u8);
        request.push(ALLOW);
    }
    let answer = ask(bootstrap, &request).await;
    // After the correlation id and the throttle time, for each rule: an error's number and text.
    assert_eq!(answer[..4], correlation);
    let created = (operations.len() as i32).to_be_bytes();
    assert_eq!(answer[8..12], created, "{answer:?}");
    let fine = [0, 0, 0, 0].repeat(operations.len());
    assert_eq!(answer[12..], fine, "{}", String::from_utf8_lossy(&answer));
}

async fn ask(bootstrap: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(bootstrap).await.expect("the broker");
    let length = (request.len() as i32).to_be_bytes();
    let sent = stream.write_all(&[&length, request].concat()).await;
    sent.expect("sending the request");
    let length = stream.read_i32().await.expect("the answer's length");
    let mut answer = vec![0; length as usize];
    let read = stream.read_exact(&mut answer).await;
    read.expect("the answer");
    answer
}

fn push_text(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i16).to_be_bytes());
    request.extend(text.as_bytes());
}
