//! What the derive makes, and what it refuses.

use estafette_core::{Bytes, Codec, Message, Raw};
use estafette_macros::Message;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(crate = "estafette_core", topic = "order.created", key = "customer", subject = "id")]
struct OrderCreated {
    id: u64,
    customer: String,
}

#[derive(Message)]
#[message(crate = "estafette_core", topic = "blob", codec = "Raw")]
struct Blob(Bytes);

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn a_derived_message_names_topic_key_and_subject() {
    let order = OrderCreated { id: 7, customer: "c1".into() };
    assert_eq!(OrderCreated::TOPIC, "order.created");
    assert_eq!(order.partition_key().as_deref(), Some("c1"));
    assert_eq!(order.subject().as_deref(), Some("7"));
    assert_eq!(OrderCreated::decode(&order.encode().unwrap()).unwrap(), order);
}

#[test]
fn a_codec_of_ones_own_is_used() {
    assert_eq!(<<Blob as Message>::Codec as Codec<Blob>>::CONTENT_TYPE, <Raw as Codec<Blob>>::CONTENT_TYPE);
    assert_eq!(Blob(Bytes::from_static(b"\xff")).encode().unwrap(), &b"\xff"[..]);
}
