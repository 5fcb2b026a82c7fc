//! The words of the engine: states, and the tables that hold deliveries.

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for a time that the caller asked for.
    Scheduled,
    /// Waits for its first attempt.
    Pending,
    /// In the hands of a worker.
    Sending,
    /// Failed in a way that may pass; waits for the next attempt.
    Retrying,
    /// Accepted by the destination.  Final.
    Succeeded,
    /// Refused for good, or out of attempts.  Final.
    Failed,
    /// Withdrawn.  Final.
    Cancelled,
    /// Kept waiting by a limit or a missing setting.
    Held,
    /// May or may not have been accepted.  Final.
    Unknown,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Pending,
        Self::Sending,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Held,
        Self::Unknown,
    ];

    /// Whether it never changes again by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Unknown)
    }

    /// Whether it waits for its time to come.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Pending | Self::Retrying | Self::Held)
    }

    /// Its word in the column `status`.
    pub const fn word(self, table: Table) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Retrying => "retrying",
            Self::Succeeded => match table {
                Table::WebhookDeliveries => "success",
                Table::EmailQueue => "sent",
            },
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Held => "held",
            Self::Unknown => "unknown",
        }
    }

    /// The state of a word in the column `status`; `None` for a word that somebody else put there.
    pub fn of_word(word: &str, table: Table) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word(table) == word)
    }
}

/// A table that holds deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Events on their way to webhook endpoints.
    WebhookDeliveries,
    /// Mails.
    EmailQueue,
}

impl Table {
    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebhookDeliveries => "webhook_deliveries",
            Self::EmailQueue => "email_queue",
        }
    }

    /// The column that names a delivery's lane.
    pub const fn lane_column(self) -> &'static str {
        match self {
            Self::WebhookDeliveries => "webhook_id",
            Self::EmailQueue => "destination",
        }
    }

    /// The column with what a delivery is in order with, or what stands for it in a table whose deliveries never are.
    pub const fn ordering_column(self) -> &'static str {
        match self {
            Self::WebhookDeliveries => "ordering_key",
            Self::EmailQueue => "CAST(NULL AS TEXT)",
        }
    }

    /// What the channel is called in metrics and logs.
    pub const fn channel(self) -> &'static str {
        match self {
            Self::WebhookDeliveries => "webhook",
            Self::EmailQueue => "email",
        }
    }
}
