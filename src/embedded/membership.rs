//! [`MembershipWatch`]: who belongs to the group, as it changes.

use super::EmbeddedClient;
use crate::api::{AdminError, ClientApi, Member};
use crate::runtime::clock;
use std::time::Duration;

/// Waits between two questions that were turned away.
const PAUSE: Duration = Duration::from_millis(10);

/// Tells of the members of the group.
///
/// The members of a group are those it was founded with: this version changes none, so a watch tells them once and then
/// waits for the engine's end.
#[derive(Debug)]
pub struct MembershipWatch {
    client: EmbeddedClient,
    told: bool,
}

impl MembershipWatch {
    pub(super) fn new(client: EmbeddedClient) -> Self {
        Self { client, told: false }
    }

    /// The members as this node knows them, at once the first time and then at each change; `None` when the engine has
    /// stopped. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<Vec<Member>> {
        while !self.told {
            match self.client.members().await {
                Ok(members) => {
                    self.told = true;
                    return Some(members);
                }
                Err(AdminError::Stopped(_)) => return None,
                Err(_) => self.client.alarm(clock::mono().after(PAUSE)).await.ok()?,
            }
        }
        std::future::poll_fn(|cx| self.client.shared().poll_ended(cx)).await;
        None
    }
}
