//! O9, leases: at the end, when nothing has failed for longer than any lease lives and nobody keeps one alive any more, all
//! of them have ended, and every node of the core has exactly the keys that a replay of the ledger has.
//!
//! That none ends early by the log's time, that its keys go with it at one revision and that none comes back is in the
//! replay: `equal_digests` compares revision and numbers after every entry. What the log's time is, `log_time` judges.

use super::model::{Item, Model, Query, Span};
use super::{Outcome, violated};
use crate::kv::{KeyRange, RangeQuery, Store};
use crate::node::Node;
use bytes::Bytes;

pub(super) const NAME: &str = "ttl";

pub(super) fn judge(node: &Node<Store>, model: &Model) -> Outcome {
    let (id, store) = (node.raft().config().id, node.machine());
    let left: Vec<_> = model.leases().collect();
    violated!(
        !left.is_empty(),
        NAME,
        "at the log's time {} these leases still live: {left:?}",
        model.stand().time
    );
    violated!(store.leases() > 0, NAME, "node {id} still has {} leases", store.leases());
    if store.revision().0 != model.revision() {
        return Ok(());
    }
    let page = store.range(&RangeQuery::new(KeyRange::all()));
    let held: Vec<_> = page.iter().flat_map(|page| page.items.iter().map(Item::of)).collect();
    let everything = Span { start: Bytes::new(), end: None };
    let query = Query { span: everything, limit: u64::MAX, descending: false, select: 0, after: None };
    let expected = model.page(&query, model.revision()).items;
    violated!(held != expected, NAME, "node {id} holds {held:?}, the ledger {expected:?}");
    Ok(())
}
