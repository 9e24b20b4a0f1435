//! `limits` of a server. Unknown names are refused: a misspelt limit is none.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::Limits;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitKeys {
    message_max: Option<usize>,
    queued_max: Option<usize>,
    buffer_max: Option<usize>,
    connections_max: Option<usize>,
    channels_max: Option<usize>,
    context_max: Option<usize>,
    handshake_timeout: Option<u64>,
    wait_timeout: Option<u64>,
    held_messages_max: Option<usize>,
    held_bytes_max: Option<usize>,
}

impl LimitKeys {
    pub(super) fn apply(&self, limits: &mut Limits) {
        let set = |limit: &mut usize, key: Option<usize>| *limit = key.unwrap_or(*limit);
        set(&mut limits.message.message_max, self.message_max);
        set(&mut limits.queued_max, self.queued_max);
        set(&mut limits.buffer_max, self.buffer_max);
        set(&mut limits.connections_max, self.connections_max);
        set(&mut limits.channels_max, self.channels_max);
        set(&mut limits.context_max, self.context_max);
        set(&mut limits.held_messages_max, self.held_messages_max);
        set(&mut limits.held_bytes_max, self.held_bytes_max);
        let set = |limit: &mut Duration, key: Option<u64>| *limit = key.map_or(*limit, Duration::from_secs);
        set(&mut limits.handshake_time, self.handshake_timeout);
        set(&mut limits.wait_time, self.wait_timeout);
    }
}
