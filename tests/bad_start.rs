//! What does not start says why, to what, and what to do; and holds nothing afterwards. On both drivers.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::embedded::Builder;
use d_engine::prelude::*;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use support::{Group, RUNTIMES, alone, block_on, on_both, started};
use wal::OpenError;

async fn refused(builder: Builder) -> StartError {
    builder.start().await.map(|engine| panic!("{engine:?} started")).unwrap_err()
}

fn says(error: &StartError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn directories_that_cannot_be_used() {
    on_both(|dir, runtime| async move {
        let parent = dir.parent().unwrap();
        let missing = refused(alone(&dir, runtime).must_exist()).await;
        assert!(matches!(missing, StartError::Directory(OpenError::Missing { .. })));
        says(&missing, &["no data directory", dir.to_str().unwrap()]);

        let file = parent.join("file");
        std::fs::write(&file, "x").unwrap();
        let error = refused(alone(&file, runtime)).await;
        assert!(matches!(error, StartError::Directory(OpenError::NotADirectory { .. })), "{error}");
        let error = refused(alone(&file.join("below"), runtime)).await;
        assert!(matches!(error, StartError::Directory(_)), "{error}");

        let open_to_all = parent.join("open");
        std::fs::create_dir(&open_to_all).unwrap();
        std::fs::set_permissions(&open_to_all, PermissionsExt::from_mode(0o777)).unwrap();
        let error = refused(alone(&open_to_all, runtime)).await;
        assert!(matches!(error, StartError::Directory(OpenError::Permissions { .. })), "{error}");

        let link = parent.join("link");
        symlink(parent, &link).unwrap();
        let error = refused(alone(&link, runtime)).await;
        assert!(matches!(error, StartError::Directory(OpenError::Symlink { .. })), "{error}");

        // Nothing can be made there, by anybody.
        let error = refused(alone("/proc/d-engine".as_ref(), runtime)).await;
        assert!(matches!(error, StartError::Directory(_)), "{error}");
        assert!(!dir.exists(), "nothing was made on the way");
    });
}

#[test]
fn a_directory_has_one_owner() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        let error = refused(alone(&dir, runtime)).await;
        assert!(matches!(error, StartError::Directory(OpenError::Locked { .. })), "{error}");
        says(&error, &[&std::process::id().to_string()]);
        engine.client().put("a", "1").await.unwrap();
        engine.stop().await.unwrap();
        for (builder, what) in [
            (alone(&dir, runtime).cluster_name("another"), "cluster"),
            (alone(&dir, runtime).node_id(2), "node"),
        ] {
            let error = refused(builder).await;
            assert!(matches!(error, StartError::Directory(OpenError::Foreign { .. })), "{error}");
            says(&error, &[what, dir.to_str().unwrap()]);
        }
        let engine = started(alone(&dir, runtime)).await;
        assert!(
            engine.client().get("a").await.unwrap().value.is_some(),
            "the first owner's data is untouched"
        );
    });
}

#[test]
fn a_damaged_log_is_refused_with_the_place() {
    on_both(|dir, runtime| async move {
        let engine = started(alone(&dir, runtime)).await;
        for n in 0..10 {
            engine.client().put(n.to_string(), "x").await.unwrap();
        }
        engine.stop().await.unwrap();
        let segment = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| std::fs::metadata(path).unwrap().len() == 4 << 20)
            .expect("a segment");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[4096 * 3 + 200] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let error = refused(alone(&dir, runtime)).await;
        assert!(matches!(error, StartError::Directory(OpenError::Corrupt { .. })), "{error}");
        says(&error, &[segment.to_str().unwrap(), "damaged at byte"]);
    });
}

#[test]
fn memory_is_refused_unless_asked_for() {
    let shm = std::path::Path::new("/dev/shm");
    if !shm.is_dir() {
        return;
    }
    let dir = tempfile::tempdir_in(shm).unwrap();
    for runtime in RUNTIMES {
        let builder = alone(&dir.path().join("data"), runtime).configure(|c| c.log.allow_volatile = false);
        let error = block_on(refused(builder));
        assert!(matches!(error, StartError::Directory(OpenError::VolatileFilesystem { .. })), "{error}");
    }
}

#[test]
fn addresses_that_cannot_be_listened_on() {
    for kind in Group::kinds() {
        let group = Group::new(kind);
        let holder = UdpSocket::bind(group.addresses[0]).unwrap();
        let error = block_on(refused(group.builder(1)));
        assert!(
            matches!(error, StartError::PortInUse { address } if address == group.addresses[0]),
            "{error}"
        );
        says(&error, &[&group.addresses[0].port().to_string(), "in use"]);
        drop(holder);

        let error = block_on(refused(group.builder(1).listen("no-such-host.invalid:9081")));
        assert!(matches!(&error, StartError::Unresolvable { .. }), "{error}");
        says(&error, &["no-such-host.invalid:9081"]);
        // An address for documentation: no interface has it.
        let error = block_on(refused(group.builder(1).listen("192.0.2.1:9081")));
        assert!(matches!(&error, StartError::Listen { .. }), "{error}");
        let error = block_on(refused(group.builder(1).listen("127.0.0.1")));
        assert!(matches!(&error, StartError::Config(_)), "{error}");
        says(&error, &["node.listen", "port"]);
        // What was refused holds nothing: the node starts as soon as the reason is gone.
        drop(block_on(group.start(1)));
    }
}

#[test]
fn certificates_that_prove_nothing() {
    for kind in Group::kinds() {
        let group = Group::new(kind);
        let path = |name: &str| group.path().join("certificates").join(name);
        // They are made by the first start.
        drop(block_on(group.start(1)));
        drop(block_on(group.start(2)));
        let authority = path("authority.pem");
        let own = path("node-1.pem");
        let with = |ca: &std::path::Path, cert: &std::path::Path, key: &std::path::Path| {
            let (ca, cert, key) = (ca.to_owned(), cert.to_owned(), key.to_owned());
            group.builder(1).configure(|c| c.tls.dir = None).certificates(ca, cert, key)
        };
        drop(block_on(with(&authority, &own, &own).start()).unwrap());
        let other = path("node-2.pem");
        for (builder, words) in [
            (with(&authority, &own, &path("none.pem")), &["none.pem", "does not exist"][..]),
            (with(&authority, &own, &other), &["not the one"]),
            (with(&authority, &other, &other), &["not for"]),
            (with(&own, &own, &own), &["not signed"]),
        ] {
            let error = block_on(refused(builder));
            assert!(matches!(error, StartError::Certificates(_)), "{error}");
            says(&error, words);
        }
        let error = block_on(refused(group.builder(1).configure(|c| c.tls.dir = None)));
        assert!(matches!(error, StartError::NoCertificates), "{error}");
    }
}

#[test]
fn configurations_that_contradict_themselves() {
    on_both(|dir, runtime| async move {
        let error = refused(alone(&dir, runtime).heartbeat(std::time::Duration::from_millis(200))).await;
        assert!(matches!(error, StartError::Config(_)));
        says(&error, &["raft.heartbeat", "raft.election_timeout"]);
        let error = refused(alone(&dir, runtime).peers([(2, "127.0.0.1:1")])).await;
        says(&error, &["node.id"]);
        let error = refused(alone(&dir, runtime).config_file("/no/such/file.toml")).await;
        says(&error, &["/no/such/file.toml", "does not exist"]);
        assert!(!dir.exists());
    });
}

/// The kernel keeps what was asked for as long as the file is open, so what counts is who holds it open.
#[cfg(target_os = "linux")]
#[test]
fn cores_are_kept_awake_as_long_as_the_engine_runs_or_it_does_not_start() {
    use std::fs::OpenOptions;
    use std::path::Path;
    use std::time::Duration;

    const DEVICE: &str = "/dev/cpu_dma_latency";
    let held = || {
        let mine = std::fs::read_dir("/proc/self/fd").unwrap();
        mine.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .filter(|to| to == Path::new(DEVICE))
            .count()
    };
    let is_there = OpenOptions::new().write(true).open(DEVICE).is_ok();
    on_both(|dir, runtime| async move {
        let awake = |dir: &Path| {
            alone(dir, runtime).configure(|c| {
                c.runtime.wake_latency = d_engine::config::WakeLatency::AtMost(Duration::from_micros(3));
            })
        };
        if is_there {
            let engine = started(awake(&dir)).await;
            assert_eq!(held(), 1);
            engine.client().put("a", "1").await.unwrap();
            engine.stop().await.unwrap();
            assert_eq!(held(), 0, "let go of before the end is told");
        } else {
            let error = refused(awake(&dir)).await;
            assert!(matches!(error, StartError::System { .. }), "{error}");
            says(&error, &["runtime.wake_latency", DEVICE, "any"]);
            assert!(!dir.exists(), "nothing was made on the way");
        }
    });
}
