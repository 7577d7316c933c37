//! The part of etcd's public API (version 3, `rpc.proto` and `kv.proto`) that is spoken here, by hand: what the
//! harness does not use is left out, and what a server sends beyond it is skipped as protobuf prescribes.

use bytes::Bytes;

/// Path of `KV.Put`.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// Path of `KV.Range`.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// Path of `Watch.Watch`.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// Where.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// What.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// The answer to a put; its header is not looked at.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PutResponse {}

/// Reads a key, or those up to `range_end`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    /// Which, or the first.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Behind the last; empty for one key.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Whether the node may answer with what it has.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
}

/// What was found.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    /// The keys.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// How many there are.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

/// What a client says on a stream of watches. The protocol has a choice of three here; only the first is used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {
    /// Begins a watch.
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreate>,
}

/// Which keys to watch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCreate {
    /// The first.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Behind the last.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// What a server says on a stream of watches, each for one of them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    /// It begins.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// It ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// Why.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// What happened.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<WatchEvent>,
}

/// One change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchEvent {
    /// The key as it is now.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn requests_have_the_bytes_of_the_public_definition() {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"vv") };
        // Field 1 and 2, length-delimited.
        assert_eq!(put.encode_to_vec(), [0x0a, 1, b'k', 0x12, 2, b'v', b'v']);
        let get = RangeRequest { key: Bytes::from_static(b"k"), range_end: Bytes::new(), serializable: true };
        // Field 7, a varint.
        assert_eq!(get.encode_to_vec(), [0x0a, 1, b'k', 0x38, 1]);
        let create = WatchCreate { key: Bytes::from_static(b"a"), range_end: Bytes::from_static(b"b") };
        let watch = WatchRequest { create: Some(create) };
        assert_eq!(watch.encode_to_vec(), [0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);
    }

    #[test]
    fn answers_are_read_with_what_is_not_known_skipped() {
        // A header with revision 5; one KeyValue with key, create_revision 3, value; count 1.
        let bytes = [0x0a, 2, 0x18, 5, 0x12, 8, 0x0a, 1, b'k', 0x10, 3, 0x2a, 1, b'v', 0x20, 1];
        let range = RangeResponse::decode(&bytes[..]).expect("well-formed");
        assert_eq!(range.count, 1);
        assert_eq!((&range.kvs[0].key[..], &range.kvs[0].value[..]), (&b"k"[..], &b"v"[..]));
        // watch_id 7, one event of type PUT (absent: 0) with a KeyValue.
        let bytes = [0x10, 7, 0x5a, 8, 0x12, 6, 0x0a, 1, b'k', 0x2a, 1, b'v'];
        let watch = WatchResponse::decode(&bytes[..]).expect("well-formed");
        assert!(!watch.created);
        assert_eq!(watch.events[0].kv.as_ref().map(|kv| &kv.value[..]), Some(&b"v"[..]));
    }
}
