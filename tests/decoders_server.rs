//! The decoders around the core, as `decoders.rs` does it for those within: configuration, and what the transport reads
//! before it knows anybody.
#![cfg(feature = "server")]

#[path = "../fuzz/src/allocation.rs"]
mod allocation;
#[allow(dead_code)]
#[path = "../fuzz/src/decoders.rs"]
mod decoders;
#[path = "../fuzz/src/run.rs"]
mod run;
#[path = "../fuzz/src/server.rs"]
mod server;

use run::Decoder;

fn fuzz(
    name: &'static str,
    target: fn(&[u8]) -> decoders::Verdict,
    seeds: Vec<(&'static str, Vec<u8>)>,
    executions: u32,
) {
    let tally = Decoder { name, target, mend: decoders::mend_nothing, seeds, executions }.run();
    eprintln!("{name}: {tally:#?}");
}

const FILE: &str = r#"
durability = "mem-first"
default_read = "lease"

[node]
id = 2
cluster = "orders"
data_dir = "/var/lib/orders"
listen = "[::]:9081"

[[node.peers]]
id = 2
address = "10.0.0.2:9081"
[[node.peers]]
id = 3
address = "c.example:9081"
[[node.peers]]
id = 4
address = "[::1]:9081"

[raft]
heartbeat = "40ms"
election_timeout = "300ms"
"#;

const VARIABLES: &str = "DURABILITY=disk-first\nNODE__ID=2\nNODE__CLUSTER=orders\nNODE__DATA_DIR=/var/lib/orders\n\
    NODE__LISTEN=127.0.0.1:9081\nNODE__PEERS=2=10.0.0.2:9081,3=c.example:9081,4=10.0.0.4:9081\nRAFT__HEARTBEAT=40ms\n\
    RAFT__ELECTION_TIMEOUT=300ms\n";

#[test]
fn configuration_files() {
    let seeds = vec![("whole", FILE.into()), ("short", b"[raft]\nheartbeat = \"40ms\"\n".to_vec())];
    fuzz("configuration", server::configuration, seeds, 20_000);
}

#[test]
fn environments() {
    let one_a_field: Vec<u8> = server::variables().join(&b"\n"[..]);
    let seeds = vec![("whole", VARIABLES.into()), ("every-field", one_a_field)];
    fuzz("environment", server::environment, seeds, 20_000);
}

#[test]
fn streams() {
    let message = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_le_bytes(), bytes].concat();
    let three = [message(b"hello"), message(b""), message(&[7; 300])].concat();
    let seeds = [("bytewise", 0), ("in-fives", 4), ("in-hundreds", 99)]
        .map(|(name, cut)| (name, [&[cut], &three[..]].concat()))
        .into();
    fuzz("assembler", server::assembler, seeds, 100_000);
}

#[test]
fn greetings() {
    let greeting =
        [&1_u32.to_le_bytes()[..], &7_u128.to_le_bytes(), &3_u64.to_le_bytes(), &9_u64.to_le_bytes()];
    fuzz("greeting", server::greeting, vec![("version-1", greeting.concat())], 100_000);
}

#[test]
fn certificate_names() {
    let seeds = vec![
        ("small", b"n17.c00000000000000000000000000000abc.d-engine".to_vec()),
        ("greatest", b"n18446744073709551615.cffffffffffffffffffffffffffffffff.d-engine".to_vec()),
    ];
    fuzz("identity", server::identity, seeds, 100_000);
}
