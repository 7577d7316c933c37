//! Every refusal with the message a user reads, and what is taken.

use super::*;
use crate::kv::Retention;
use std::time::Duration;
use wal::NodeId;

const FILE: &str = "d-engine.toml";

/// Reads a file with this content, and these variables.
fn read_bytes(content: &[u8], variables: &[(&str, &str)]) -> Result<Draft, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(FILE);
    std::fs::write(&path, content).expect("written");
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let shorten = |error: ConfigError| error.to_string().replace(&path.display().to_string(), FILE);
    Draft::read(Some(&path), variables).map_err(shorten)
}

fn load(content: &str) -> Result<Loaded, String> {
    let shorten = |error: ConfigError| {
        // The directory is random: cut it out of "(/tmp/x/d-engine.toml:3)".
        let words = error.to_string();
        let words = words.split(' ').map(|word| match word.rfind(FILE) {
            Some(at) if word.starts_with('(') => format!("({}", &word[at..]),
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    read_bytes(content.as_bytes(), &[])?.finish().map_err(shorten)
}

fn refused(content: &str, message: &str) {
    assert_eq!(load(content).map(|_| "accepted").expect_err("refused"), message, "\nfor\n{content}");
}

fn refused_variable(name: &str, value: &str, message: &str) {
    let result = Draft::read(None, [(name.into(), value.into())]);
    assert_eq!(result.map(|_| "accepted").expect_err("refused").to_string(), message);
}

#[test]
fn the_defaults_are_in_their_ranges_and_work_together() {
    for field in FIELDS {
        let raw = Raw::Word(field.default.to_owned());
        assert_eq!((field.set)(&mut Configuration::default(), &raw), Ok(()), "{field:?}");
        assert!(!field.doc.trim().is_empty() && !field.accepts.is_empty(), "{field:?}");
    }
    let loaded = Draft::default().finish().expect("the defaults");
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.configuration.listen_address().to_string(), "127.0.0.1:9081");
    assert_eq!(loaded.configuration.lease(), Duration::from_micros(67_500));
    assert_eq!(loaded.configuration.kv_limits(), crate::kv::Limits::DEFAULT);
    assert_eq!(loaded.configuration.retention(), Retention::DEFAULT);
    assert_eq!(loaded.configuration.watch_limits(), crate::kv::WatchLimits::DEFAULT);
}

#[test]
fn what_a_field_shows_it_reads_back() {
    for (field, value, _) in Draft::default().finish().expect("the defaults").configuration.show() {
        let mut other = Configuration::default();
        (field.set)(&mut other, &Raw::Word(value.clone())).expect("shown text is read");
        assert_eq!((field.show)(&other), value);
    }
}

const WHOLE: &str = r#"
durability = "mem-first"
default_read = "lease"

[node]
id = 2
cluster = "orders"
data_dir = "/var/lib/orders"
listen = "[::]:9081"

[[node.peers]]
id = 3
address = "C.example:9081"
[[node.peers]]
id = 2
address = "10.0.0.2:9081"
[[node.peers]]
id = 1
address = "[fe80::1%eth0]:9081"

[raft]
heartbeat = "1500us"
election_timeout = "10ms"
drift_bound = "0.5%"

[log]
segment_bytes = "16MiB"
allow_volatile = true

[limits]
pending_requests = 10
value_bytes = "1000B"

[history]
changes = 7
age = "90m"

[runtime]
kind = "tokio"
core = 3
spin = "50us"

[tls]
mode = "files"
ca = "ca.pem"
cert = "node.pem"
key = "node.key"
"#;

#[test]
fn a_whole_file_is_taken() {
    let Loaded { configuration: c, warnings } = load(WHOLE).expect("valid");
    assert_eq!(warnings, [Warning::VolatileLog]);
    assert_eq!((c.durability, c.default_read), (Durability::MemFirst, ReadLevel::Lease));
    assert_eq!((c.node.id, c.node.cluster.0.as_str()), (NodeId(2), "orders"));
    assert_eq!(c.node.data_dir.as_deref(), Some(Path::new("/var/lib/orders")));
    assert_eq!(c.listen_address().to_string(), "[::]:9081");
    let peers: Vec<_> = c.node.peers.iter().map(|peer| format!("{}={}", peer.id, peer.address)).collect();
    assert_eq!(peers, ["1=[fe80::1%eth0]:9081", "2=10.0.0.2:9081", "3=c.example:9081"]);
    assert_eq!(c.raft.heartbeat, Duration::from_micros(1500));
    assert_eq!(c.raft.drift_bound, PartsPerMillion(5_000));
    assert_eq!(c.lease(), Duration::from_nanos(4_477_500));
    assert_eq!(c.log.segment_bytes, ByteCount(16 << 20));
    assert_eq!((c.limits.pending_requests, c.limits.value_bytes), (10, ByteCount(1_000)));
    let retention = Retention { changes: 7, bytes: 64 << 20, age: Some(Duration::from_secs(5400)) };
    assert_eq!(c.retention(), retention);
    assert_eq!((c.runtime.kind, c.runtime.core), (RuntimeKind::Tokio, Some(3)));
    assert_eq!(c.runtime.spin, Spin::For(Duration::from_micros(50)));
    assert_eq!((c.tls.mode, c.tls.key.as_deref()), (TlsMode::Files, Some(Path::new("node.key"))));
}

#[test]
fn variables_override_the_file_and_code_overrides_both() {
    let file = "[raft]\nheartbeat = \"20ms\"\nelection_timeout = \"500ms\"\nrequest_timeout = \"9s\"\n";
    let variables = [
        ("D_ENGINE__RAFT__ELECTION_TIMEOUT", "700ms"),
        ("D_ENGINE__RAFT__REQUEST_TIMEOUT", "8s"),
        ("D_ENGINE__DURABILITY", "mem-first"),
        ("D_ENGINE__NODE__PEERS", "1=a:1, 2=b:2, 3=c:3"),
        ("D_ENGINE_HOME", "not ours"),
    ];
    let draft = read_bytes(file.as_bytes(), &variables).expect("valid");
    let draft = draft.change(|c| {
        c.raft.request_timeout = Duration::from_secs(7);
        c.raft.heartbeat = Duration::from_millis(20);
    });
    let c = draft.finish().expect("valid").configuration;
    let shown = |name: &str| {
        let origin = match c.origin(name).expect("a field") {
            Origin::File { line, .. } => format!("line {line}"),
            origin => origin.to_string(),
        };
        let (.., value, _) = c.show().find(|(field, ..)| field.name == name).expect("a field");
        format!("{value} from {origin}")
    };
    assert_eq!(shown("raft.heartbeat"), "20ms from line 2", "code that says the same changes nothing");
    assert_eq!(shown("raft.election_timeout"), "700ms from D_ENGINE__RAFT__ELECTION_TIMEOUT");
    assert_eq!(shown("raft.request_timeout"), "7s from code");
    assert_eq!(shown("node.peers"), "1=a:1,2=b:2,3=c:3 from D_ENGINE__NODE__PEERS");
    assert_eq!(shown("durability"), "mem-first from D_ENGINE__DURABILITY");
    assert_eq!(shown("limits.batch_bytes"), "1MiB from default");
    assert_eq!(c.listen_address().to_string(), "a:1", "its own address among the peers");
    assert_eq!(c.origin("raft.hearbeat"), None);
}

#[test]
fn the_file_is_named_by_the_program_or_by_config_path() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [named, given] = ["named", "given"].map(|name| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("[node]\ncluster = \"{name}\"\n")).expect("written");
        path
    });
    let variable = [(OsString::from(PATH_VARIABLE), named.into_os_string())];
    let cluster = |draft: Draft| draft.configuration().node.cluster.0.clone();
    assert_eq!(cluster(Draft::read(None, variable.clone()).expect("valid")), "named");
    assert_eq!(cluster(Draft::read(Some(&given), variable).expect("valid")), "given");
    refused_variable(
        PATH_VARIABLE,
        "/no/such/file",
        "configuration file /no/such/file: it does not exist; create it, or unset CONFIG_PATH to run on defaults",
    );
}

#[test]
fn a_file_that_is_none_is_refused() {
    let message = |content: &[u8]| read_bytes(content, &[]).expect_err("refused");
    assert_eq!(
        message(b""),
        "configuration file d-engine.toml: it is empty (0 bytes); was it cut while being written?"
    );
    assert_eq!(
        message(&vec![b'#'; (1 << 20) + 1]),
        "configuration file d-engine.toml: it is longer than 1048576 bytes; is it a configuration?"
    );
    assert!(read_bytes(&vec![b'#'; 1 << 20], &[]).is_ok(), "the limit is allowed");
    for mark in ["\u{feff}[node]".as_bytes(), b"\xff\xfe[\0", b"\xfe\xff\0["] {
        assert_eq!(
            message(mark),
            "configuration file d-engine.toml: it starts with a byte order mark; save it as UTF-8 without one"
        );
    }
    assert_eq!(
        message(b"# fine\n[node]\n# \xc3\x28"),
        "configuration file d-engine.toml: it is not UTF-8: line 3 holds an invalid byte (offset 16)"
    );
    let directory = std::env::temp_dir();
    assert_eq!(
        Draft::read(Some(&directory), []).expect_err("refused").to_string(),
        format!("configuration file {}: it is a directory; name the file inside it", directory.display())
    );
    #[cfg(unix)]
    assert_eq!(
        Draft::read(Some(Path::new("/dev/zero")), []).expect_err("refused").to_string(),
        "configuration file /dev/zero: it is not a regular file"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_line_and_column() {
    refused("[raft]\nheartbeat \"50ms\"\n", "d-engine.toml:2:11: key with no value, expected `=`");
    refused(
        "[raft]\nheartbeat = \"50ms\"\n\nheartbeat = \"60ms\"\n",
        "d-engine.toml:4:1: duplicate key heartbeat: keep one of them",
    );
    refused("[raft]\n[raft]\n", "d-engine.toml:2:2: duplicate key raft: keep one of them");
}

#[test]
fn a_name_that_nobody_knows_is_refused_with_the_nearest() {
    refused(
        "[raft]\nhearbeat = \"50ms\"\n",
        "unknown key raft.hearbeat (d-engine.toml:2): did you mean raft.heartbeat?",
    );
    refused("\n[lmits]\nbatch_bytes = 1\n", "unknown key lmits (d-engine.toml:2): did you mean limits?");
    refused(
        "[raft]\nbatch_bytes = \"1MiB\"\n",
        "unknown key raft.batch_bytes (d-engine.toml:2): did you mean limits.batch_bytes?",
    );
    refused("durabilty = \"x\"\n", "unknown key durabilty (d-engine.toml:1): did you mean durability?");
    refused(
        "[raft.heartbeat]\nx = 1\n",
        "raft.heartbeat = {…} (d-engine.toml:1): expected a duration with its unit, as \"250ms\", found a table",
    );
    refused("[quux]\n", "unknown key quux (d-engine.toml:1)");
    refused("raft = 5\n", "raft = 5 (d-engine.toml:1): expected a table, found a number");
    refused_variable(
        "D_ENGINE__LIMITS__BATCHBYTES",
        "1MiB",
        "unknown environment variable D_ENGINE__LIMITS__BATCHBYTES: did you mean D_ENGINE__LIMITS__BATCH_BYTES?",
    );
    refused_variable(
        "D_ENGINE__RAFT_HEARTBEAT",
        "1ms",
        "unknown environment variable D_ENGINE__RAFT_HEARTBEAT: did you mean D_ENGINE__RAFT__HEARTBEAT?",
    );
    refused_variable("D_ENGINE__X", "1", "unknown environment variable D_ENGINE__X");
    let mut variables = ["D_ENGINE__X", "D_ENGINE__Y"].map(|name| (name.into(), "1".into()));
    for _ in 0..2 {
        variables.reverse();
        let error = Draft::read(None, variables.clone()).expect_err("refused");
        assert_eq!(error.to_string(), "unknown environment variable D_ENGINE__X", "whatever the order");
    }
}

#[test]
fn a_duration_out_of_range_or_without_unit_is_refused() {
    let heartbeat = |value: &str, problem: &str| {
        refused(
            &format!("[raft]\nheartbeat = {value}\n"),
            &format!("raft.heartbeat = {value} (d-engine.toml:2): {problem}"),
        );
    };
    heartbeat("50", "expected a duration with its unit, as \"250ms\", found a number");
    heartbeat("0.5", "expected a duration with its unit, as \"250ms\", found a float");
    heartbeat("true", "expected a duration with its unit, as \"250ms\", found a boolean");
    heartbeat("1979-05-27", "expected a duration with its unit, as \"250ms\", found a date");
    heartbeat("\"0ms\"", "must be from 1ms to 10s");
    heartbeat("\"11s\"", "must be from 1ms to 10s");
    heartbeat("\"-5ms\"", "expected a duration with its unit, as \"250ms\": expected number at 0");
    heartbeat(
        "\"50\"",
        "expected a duration with its unit, as \"250ms\": time unit needed, for example 50sec or 50ms",
    );
    heartbeat("\"\"", "expected a duration with its unit, as \"250ms\": value was empty");
    heartbeat(
        "\"99999999999999999999s\"",
        "expected a duration with its unit, as \"250ms\": number is too large or cannot be represented without a \
         lack of precision (values below 1ns are not supported)",
    );
}

#[test]
fn a_size_out_of_range_or_without_unit_is_refused() {
    let batch = |value: &str, problem: &str| {
        refused(
            &format!("[limits]\nbatch_bytes = {value}\n"),
            &format!("limits.batch_bytes = {value} (d-engine.toml:2): {problem}"),
        );
    };
    batch("1048576", "expected a size with its unit, as \"64KiB\", found a number");
    batch("\"1048576\"", "expected a size with its unit, as \"64KiB\": the unit is missing");
    batch("\"0B\"", "must be from 4KiB to 16MiB");
    batch("\"17MiB\"", "must be from 4KiB to 16MiB");
    batch("\"99999999999EiB\"", "must be from 4KiB to 16MiB");
    batch("\"-1MiB\"", "expected a size with its unit, as \"64KiB\": a size is not negative");
    batch("\"1 Mibble\"", "expected a size with its unit, as \"64KiB\": this is none");
}

#[test]
fn a_number_out_of_range_is_refused() {
    let flights = |value: &str, problem: &str| {
        refused(
            &format!("[limits]\nbatches_in_flight = {value}\n"),
            &format!("limits.batches_in_flight = {value} (d-engine.toml:2): {problem}"),
        );
    };
    flights("0", "must be from 1 to 64");
    flights("-1", "must be from 1 to 64");
    flights("65", "must be from 1 to 64");
    flights("9223372036854775808", "must be from 1 to 64");
    flights("\"4\"", "expected a whole number, found text");
    flights("1.0", "expected a whole number, found a float");
    refused("[node]\nid = 0\n", "node.id = 0 (d-engine.toml:2): must be from 1 to 18446744073709551615");
    refused_variable(
        "D_ENGINE__NODE__ID",
        "18446744073709551616",
        "node.id = \"18446744073709551616\" (D_ENGINE__NODE__ID): must be from 1 to 18446744073709551615",
    );
    refused_variable(
        "D_ENGINE__NODE__ID",
        "one",
        "node.id = \"one\" (D_ENGINE__NODE__ID): expected a whole number: invalid digit found in string",
    );
}

#[test]
fn a_word_that_is_none_of_those_known_is_refused() {
    refused(
        "durability = \"disk_first\"\n",
        "durability = \"disk_first\" (d-engine.toml:1): expected disk-first or mem-first: did you mean disk-first?",
    );
    refused(
        "[runtime]\nkind = \"smol\"\n",
        "runtime.kind = \"smol\" (d-engine.toml:2): expected auto, glommio or tokio",
    );
    refused(
        "[log]\nallow_volatile = \"yes\"\n",
        "log.allow_volatile = \"yes\" (d-engine.toml:2): expected true or false, found text",
    );
    refused(
        "[runtime]\nspin = \"1h\"\n",
        "runtime.spin = \"1h\" (d-engine.toml:2): must be from 1us to 100ms",
    );
    refused(
        "[runtime]\nwake_latency = \"2s\"\n",
        "runtime.wake_latency = \"2s\" (d-engine.toml:2): must be from 0us to 1s",
    );
    refused("[runtime]\ncore = 4096\n", "runtime.core = 4096 (d-engine.toml:2): must be from 0 to 4095");
    refused_variable(
        "D_ENGINE__LOG__ALLOW_VOLATILE",
        "",
        "log.allow_volatile = \"\" (D_ENGINE__LOG__ALLOW_VOLATILE): it is set but empty; unset it to use the default",
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    let error = Draft::read(None, [("D_ENGINE__NODE__CLUSTER".into(), value)]).expect_err("refused");
    assert_eq!(error.to_string(), "node.cluster = (bytes) (D_ENGINE__NODE__CLUSTER): it is not Unicode");
}

#[test]
fn a_part_of_a_whole_is_a_percentage() {
    let drift = |value: &str, problem: &str| {
        refused(
            &format!("[raft]\ndrift_bound = \"{value}\"\n"),
            &format!("raft.drift_bound = \"{value}\" (d-engine.toml:2): {problem}"),
        );
    };
    drift("0%", "must be from 0.0001% to 50%");
    drift("50.0001%", "must be from 0.0001% to 50%");
    drift("0.1", "expected a percentage, as \"10%\" or \"0.5%\": the % is missing");
    drift("-1%", "expected a percentage, as \"10%\" or \"0.5%\": it is not negative");
    drift("ten%", "expected a percentage, as \"10%\" or \"0.5%\": this is none");
    drift(
        "1.00001%",
        "expected a percentage, as \"10%\" or \"0.5%\": four digits after the point are the most",
    );
    drift("99999999999%", "expected a percentage, as \"10%\" or \"0.5%\": it is far too large");
    assert_eq!(PartsPerMillion(100_500).to_string(), "10.05%");
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let listen = |value: &str, why: &str| {
        refused(
            &format!("[node]\nlisten = \"{value}\"\n"),
            &format!(
                "node.listen = \"{value}\" (d-engine.toml:2): expected an address, as \"node-1.example:9081\" or \
                 \"[::1]:9081\": {why}"
            ),
        );
    };
    listen("localhost", "the port is missing");
    listen("localhost:", "the port is not from 0 to 65535");
    listen("localhost:65536", "the port is not from 0 to 65535");
    listen("localhost:+1", "the port is not from 0 to 65535");
    listen(":9081", "the host is missing");
    listen("::1:9081", "an IPv6 address stands between brackets");
    listen("[::1:9081", "the bracket is not closed");
    listen("[::g]:9081", "no IPv6 address stands between the brackets");
    listen("quic://host:9081", "an IPv6 address stands between brackets");
    listen("a host:9081", "the host holds characters that no host name has");
    listen(&format!("{}:1", "h".repeat(254)), "a host name has at most 253 characters");
    listen("", "the port is missing");
}

#[test]
fn peers_are_ids_and_addresses() {
    const A_PEER: &str = "expected { id = 1, address = \"host:port\" } or \"1=host:port\"";
    let peers = |value: &str, why: &str| {
        refused(
            &format!("[node]\npeers = {value}\n"),
            &format!("node.peers = […] (d-engine.toml:2): {A_PEER}: {why}"),
        );
    };
    peers("[{ id = 1 }]", "one has no address");
    peers("[{ address = \"a:1\" }]", "one has no id");
    peers("[{ id = 1, addres = \"a:1\", address = \"a:1\" }]", "it has the unknown key addres");
    peers("[{ id = 0, address = \"a:1\" }]", "id = 0: must be from 1 to 18446744073709551615");
    peers("[\"a:1\"]", "found \"a:1\"");
    peers("[\"1=a:0\"]", "a peer cannot be reached at port 0 (1=a:0)");
    refused(
        "[node]\npeers = \"1=a:1\"\n",
        "node.peers = \"1=a:1\" (d-engine.toml:2): expected a list of peers, found text",
    );
    refused(
        "[node]\ncluster = \"\"\n",
        "node.cluster = \"\" (d-engine.toml:2): expected a name of 1 to 255 characters: it is empty",
    );
    refused(
        "[node]\ndata_dir = \"\"\n",
        "node.data_dir = \"\" (d-engine.toml:2): expected a path: it is empty",
    );
}

#[test]
fn peers_that_cannot_be_a_cluster_are_refused() {
    refused(
        "[node]\npeers = [\"1=a:1\", \"2=b:1\", \"1=c:1\"]\n",
        "node.peers (d-engine.toml:2) has id 1 twice: every node has an id of its own, for ever",
    );
    refused(
        "[node]\npeers = [\"1=a:1\", \"2=A:1\"]\n",
        "node.peers (d-engine.toml:2) has address a:1 twice, for ids 1 and 2: only one of them can be there",
    );
    refused(
        "[node]\nid = 4\npeers = [\"1=a:1\", \"2=b:1\"]\n",
        "node.id = \"4\" (d-engine.toml:2) is not among node.peers (d-engine.toml:3), which lists 1, 2: a node is one \
         of its own peers",
    );
}

#[test]
fn timeouts_that_cannot_work_are_refused() {
    refused(
        "[raft]\nelection_timeout = \"75ms\"\n",
        "raft.election_timeout = \"75ms\" (d-engine.toml:2) must be more than three times raft.heartbeat = \"25ms\" \
         (default): two heartbeats lost in a row would depose a healthy leader",
    );
    assert!(load("[raft]\nelection_timeout = \"76ms\"\n").is_ok());
}

#[test]
fn limits_that_do_not_fit_each_other_are_refused() {
    refused(
        "[log]\nsegment_bytes = \"4MiB\"\n[limits]\nbatch_bytes = \"1025KiB\"\n",
        "limits.batch_bytes = \"1025KiB\" (d-engine.toml:4) must be at most a quarter of log.segment_bytes = \"4MiB\" \
         (d-engine.toml:2): a batch lies in one segment, and the rest of it would be wasted",
    );
    refused(
        "[limits]\nvalue_bytes = \"1MiB\"\n",
        "limits.value_bytes = \"1MiB\" (d-engine.toml:2) with limits.key_bytes = \"4KiB\" (default) makes commands of \
         up to 2101302B (compare-and-swap carries two values), more than limits.batch_bytes = \"1MiB\" (default): \
         they would be admitted and never committed",
    );
    refused(
        "[limits]\npending_bytes = \"512KiB\"\n",
        "limits.value_bytes = \"256KiB\" (default) with limits.key_bytes = \"4KiB\" (default) makes commands of up to \
         528438B (compare-and-swap carries two values), more than limits.pending_bytes = \"512KiB\" \
         (d-engine.toml:2): they would be admitted and never committed",
    );
    refused(
        "[limits]\nmessage_bytes = \"1MiB\"\n",
        "limits.message_bytes = \"1MiB\" (d-engine.toml:2) must hold limits.batch_bytes = \"1MiB\" (default) and 4KiB \
         more: a full batch could not be sent",
    );
    refused(
        "[limits]\ninflight_bytes = \"1023KiB\"\n",
        "limits.inflight_bytes = \"1023KiB\" (d-engine.toml:2) must be at least limits.batch_bytes = \"1MiB\" \
         (default): a full batch could never be sent to a peer",
    );
    refused(
        "[limits]\ncache_bytes = \"2MiB\"\n",
        "limits.cache_bytes = \"2MiB\" (d-engine.toml:2) must be at least limits.inflight_bytes = \"4MiB\" (default): \
         entries would leave the cache before the peers that they were sent to have answered",
    );
}

#[test]
fn certificates_are_ours_or_yours() {
    refused(
        "[tls]\nmode = \"files\"\nca = \"a\"\ncert = \"b\"\n",
        "tls.mode = \"files\" (d-engine.toml:2) needs tls.key, which is not set",
    );
    refused(
        "[tls]\nca = \"a\"\n",
        "tls.ca = \"a\" (d-engine.toml:2) would be ignored: tls.mode = \"development\" (default) makes its own \
         certificates; set tls.mode = \"files\" to use yours",
    );
    refused(
        "[tls]\nmode = \"files\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\ndir = \"d\"\n",
        "tls.dir = \"d\" (d-engine.toml:6) would be ignored: tls.mode = \"files\" (d-engine.toml:2) takes no directory",
    );
}

#[test]
fn what_code_sets_is_held_to_the_same_ranges() {
    let message = |change: fn(&mut Configuration)| {
        Draft::default().change(change).finish().expect_err("refused").to_string()
    };
    assert_eq!(
        message(|c| c.raft.heartbeat = Duration::ZERO),
        "raft.heartbeat = \"0s\" (code): must be from 1ms to 10s"
    );
    assert_eq!(
        message(|c| c.limits.batches_in_flight = 0),
        "limits.batches_in_flight = \"0\" (code): must be from 1 to 64"
    );
    assert_eq!(
        message(|c| c.node.listen = Some(Address { host: "a b".to_owned(), port: 1 })),
        "node.listen = \"a b:1\" (code): expected an address, as \"node-1.example:9081\" or \"[::1]:9081\": the host \
         holds characters that no host name has"
    );
    assert_eq!(
        message(|c| c.raft.election_timeout = Duration::from_millis(60)),
        "raft.election_timeout = \"60ms\" (code) must be more than three times raft.heartbeat = \"25ms\" (default): \
         two heartbeats lost in a row would depose a healthy leader"
    );
}

#[test]
fn an_even_number_of_voters_and_impatience_are_warned_of() {
    let warnings = |content: &str| -> Vec<String> {
        load(content).expect("valid").warnings.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        warnings("[node]\npeers = [\"1=a:1\", \"2=b:1\"]\n"),
        ["node.peers has 2 voters: no more of them may fail than of 1, and a majority is larger"],
    );
    assert_eq!(warnings("[node]\npeers = [\"1=a:1\", \"2=b:1\", \"3=c:1\"]\n"), [""; 0]);
    assert_eq!(
        warnings("[raft]\nrequest_timeout = \"900ms\"\n"),
        [
            "raft.request_timeout is below four times raft.election_timeout: requests give up before a failed leader is \
          replaced"
        ],
    );
    assert_eq!(
        warnings("[log]\nallow_volatile = true\n"),
        ["log.allow_volatile is set: acknowledged writes may be gone after a restart"],
    );
}

#[test]
fn a_tuner_keeps_something_and_has_something_to_choose_from() {
    let target = |value: &str, problem: &str| {
        refused(
            &format!("[tuner]\ntarget_p99 = \"{value}\"\n"),
            &format!("tuner.target_p99 = \"{value}\" (d-engine.toml:2): {problem}"),
        );
    };
    target(
        "0ms",
        "expected \"off\" or a duration from 10us to 1m, as \"5ms\": nothing takes no time; to tune nothing, say \"off\"",
    );
    target("1us", "must be from 10us to 1m");
    refused("[tuner]\ntarget = \"5ms\"\n", "unknown key tuner.target (d-engine.toml:2)");
    refused(
        "[tuner]\nbatches_in_flight_min = 4\nbatches_in_flight_max = 2\n",
        "tuner.batches_in_flight_min = \"4\" (d-engine.toml:2) must be at most tuner.batches_in_flight_max = \"2\" \
         (d-engine.toml:3): there is nothing between them to choose from",
    );
    refused(
        "[tuner]\ntarget_p99 = \"5ms\"\nbatches_in_flight_min = 2\n",
        "limits.batches_in_flight = \"1\" (default) must lie between tuner.batches_in_flight_min = \"2\" \
         (d-engine.toml:3) and tuner.batches_in_flight_max = \"8\" (default): the tuner starts from it",
    );
    refused(
        "[tuner]\ntarget_p99 = \"5ms\"\nbatch_bytes_max = \"2MiB\"\n",
        "tuner.batch_bytes_max = \"2MiB\" (d-engine.toml:3) must be at most limits.batch_bytes = \"1MiB\" (default): a \
         batch holds no more",
    );
    refused(
        "[tuner]\ntarget_p99 = \"5ms\"\ninflight_bytes_max = \"128MiB\"\n",
        "tuner.inflight_bytes_max = \"128MiB\" (d-engine.toml:3) must be at most limits.cache_bytes = \"64MiB\" \
         (default): entries would leave the cache before the peers that they were sent to have answered",
    );
    refused(
        "[limits]\nbatch_soft_bytes = \"2MiB\"\n",
        "limits.batch_soft_bytes = \"2MiB\" (d-engine.toml:2) must be at most limits.batch_bytes = \"1MiB\" (default): \
         a batch holds no more",
    );
    let c =
        load("[tuner]\ntarget_p99 = \"5ms\"\nbatch_bytes_max = \"512KiB\"\n").expect("valid").configuration;
    assert_eq!(c.tuner.target_p99, LatencyTarget::Under(Duration::from_millis(5)));
    assert_eq!(c.tuner_bounds().batch_bytes.most, 512 << 10);
    let c = Draft::default().finish().expect("the defaults").configuration;
    assert_eq!((c.tuner.target_p99, c.pace().batch_bytes), (LatencyTarget::Off, 1 << 20));
    assert_eq!(c.tuner_bounds().batch_bytes.most, 1 << 20, "auto is the limit");
}

#[test]
fn no_heartbeat_that_can_be_configured_asks_for_a_promise_that_nobody_gives() {
    let field = FIELDS.iter().find(|field| field.name == "raft.heartbeat").expect("it is there");
    let (_, longest) = field.accepts.split_once("..=").expect("a range");
    let heartbeat = humantime::parse_duration(longest).expect("a duration");
    let mut configuration = Configuration::default();
    configuration.raft.heartbeat = heartbeat;
    assert_eq!(configuration.promise(), crate::raft::MAX_PROMISE);
}
