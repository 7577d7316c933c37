//! An engine that is told nothing: alone in its process, since it reads the working directory and the environment.
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::prelude::*;
use support::{PATIENCE, block_on};

#[test]
fn a_debug_build_falls_back_to_a_local_directory_and_a_release_build_asks() {
    let dir = tempfile::tempdir().unwrap();
    std::env::set_current_dir(dir.path()).unwrap();
    block_on(async {
        if cfg!(debug_assertions) {
            let engine = EmbeddedEngine::start().await.unwrap();
            engine.wait_ready(PATIENCE).await.unwrap();
            engine.stop().await.unwrap();
            assert!(dir.path().join("d-engine-data").is_dir());
        } else {
            let error = EmbeddedEngine::start().await.unwrap_err();
            assert!(matches!(error, StartError::NoDataDirectory), "{error}");
            assert!(error.to_string().contains("node.data_dir"));
        }
        // A file says where, and how.
        let text =
            "durability = \"mem-first\"\n[node]\ndata_dir = \"from-file\"\n[runtime]\nkind = \"tokio\"\n";
        std::fs::write("node.toml", text).unwrap();
        let engine = EmbeddedEngine::with_config("node.toml").await.unwrap();
        engine.wait_ready(PATIENCE).await.unwrap();
        assert_eq!(engine.runtime(), "tokio");
        let put = engine.client().put("a", "1").await.unwrap();
        assert_eq!(put.durability, Durability::MemFirst);
        assert!(dir.path().join("from-file").is_dir());
        engine.stop().await.unwrap();
    });
}
