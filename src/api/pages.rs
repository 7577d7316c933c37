//! [`Pages`]: a range too long for one answer.

use super::{Answer, ClientApi, ReadError};
use crate::kv::{RangePage, RangeQuery};

/// The pages of a range, one after the other and all of one revision: that of the first page, or the one asked for. Made
/// by [`ClientApi::pages`].
///
/// Nothing is held between two pages, here or in the store: a reader that takes its time is told
/// [`Compacted`](crate::kv::RevisionError::Compacted) if its revision is no longer kept by then.
#[derive(Debug)]
pub struct Pages<'a, C: ?Sized> {
    client: &'a C,
    next: Option<RangeQuery>,
}

impl<'a, C: ClientApi + ?Sized> Pages<'a, C> {
    pub(super) fn new(client: &'a C, query: RangeQuery) -> Self {
        Self { client, next: Some(query) }
    }

    /// The next page; `None` behind the last one. A page may be shorter than the limit, and empty when nothing is found.
    /// After an error, and when the future was dropped, the same page is asked for again.
    ///
    /// # Errors
    /// As [`ClientApi::range`].
    pub async fn next(&mut self) -> Result<Option<Answer<RangePage>>, ReadError> {
        let Some(query) = &self.next else { return Ok(None) };
        let page = self.client.range(query.clone()).await?;
        self.next.clone_from(&page.value.next);
        Ok(Some(page))
    }
}
