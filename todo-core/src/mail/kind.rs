//! The kinds of mails: names, lifetimes, subjects and texts.

use chrono::TimeDelta;

/// What a mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailKind {
    /// A link that sets a new password.
    Reset,
    /// A link that confirms the address of an account.
    Verify,
    /// A link that confirms a new address; it is sent to that.
    Change,
    /// Notices.
    PasswordChanged,
    EmailChanging,
    EmailChanged,
    KeyCreated,
    IdentityAdded,
    IdentityRemoved,
    AccountDeleted,
    /// A reminder of a todo has fired.
    Reminder,
}

impl MailKind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Reset,
        Self::Verify,
        Self::Change,
        Self::PasswordChanged,
        Self::EmailChanging,
        Self::EmailChanged,
        Self::KeyCreated,
        Self::IdentityAdded,
        Self::IdentityRemoved,
        Self::AccountDeleted,
        Self::Reminder,
    ];

    /// The name in the database, in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Verify => "verify",
            Self::Change => "change",
            Self::PasswordChanged => "password_changed",
            Self::EmailChanging => "email_changing",
            Self::EmailChanged => "email_changed",
            Self::KeyCreated => "key_created",
            Self::IdentityAdded => "identity_added",
            Self::IdentityRemoved => "identity_removed",
            Self::AccountDeleted => "account_deleted",
            Self::Reminder => "reminder",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Time from its queueing for which it is sent, and its link works.
    pub(crate) fn lifetime(self) -> TimeDelta {
        match self {
            Self::Reset => TimeDelta::minutes(30),
            Self::Change => TimeDelta::hours(1),
            _ => TimeDelta::hours(24),
        }
    }

    /// Whether it has a link, with a token.
    pub(crate) fn has_link(self) -> bool {
        self.link_path().is_some()
    }

    /// The path of its link below the app's address, if it has a link.
    pub(super) fn link_path(self) -> Option<&'static str> {
        match self {
            Self::Reset => Some("/reset"),
            Self::Verify | Self::Change => Some("/confirm"),
            _ => None,
        }
    }

    /// The subject, in which `{title}` is the title of the todo.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Reset => "Set a new password",
            Self::Verify => "Confirm your e-mail address",
            Self::Change => "Confirm your new e-mail address",
            Self::PasswordChanged => "Your password was changed",
            Self::EmailChanging => "Your e-mail address is to be changed",
            Self::EmailChanged => "Your e-mail address was changed",
            Self::KeyCreated => "An API key was created",
            Self::IdentityAdded => "A way to log in was added",
            Self::IdentityRemoved => "A way to log in was removed",
            Self::AccountDeleted => "Your account was deleted",
            Self::Reminder => "Reminder: {title}",
        }
    }

    /// The text, in which `{name}` is the name of the service, `{app}` the address of the app,
    /// `{link}` the link, `{time}` the time of the event, `{title}` the title of the todo and
    /// `{due}` when it is due.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Reset => {
                "A new password was requested for your account at {name}.\n\n\
                 To set one, open this link within 30 minutes:\n\n\
                 {link}\n\n\
                 If you did not request it, ignore this mail: your password is unchanged.\n"
            }
            Self::Verify => {
                "An account at {name} was created with this e-mail address.\n\n\
                 To confirm the address, open this link within 24 hours:\n\n\
                 {link}\n\n\
                 If you did not create the account, ignore this mail.\n"
            }
            Self::Change => {
                "This is to be the new e-mail address of an account at {name}.\n\n\
                 To confirm it, open this link within an hour:\n\n\
                 {link}\n\n\
                 If you did not request this, ignore this mail: nothing is changed.\n"
            }
            Self::PasswordChanged => {
                "The password of your account at {name} was changed at {time}.\nOther sessions of the \
                 account were ended.\n\n\
                 If it was not you, request a new password at once:\n\n\
                 {app}\n"
            }
            Self::EmailChanging => {
                "A change of the e-mail address of your account at {name} was requested\nat \
                 {time}. It takes effect when the new address is confirmed.\n\n\
                 If it was not you, change your password at once:\n\n\
                 {app}\n"
            }
            Self::EmailChanged => {
                "The e-mail address of your account at {name} was changed at \
                 {time}.\nThis address is no longer in use there.\n\n\
                 If it was not you, contact the operator:\n\n\
                 {app}\n"
            }
            Self::KeyCreated => {
                "An API key for your account at {name} was created at {time}.\n\n\
                 If it was not you, change your password and end all keys at once:\n\n\
                 {app}\n"
            }
            Self::IdentityAdded => {
                "A way to log in to your account at {name} was added at {time}:\nan identity at \
                 another provider.\n\n\
                 If it was not you, remove it and change your password at once:\n\n\
                 {app}\n"
            }
            Self::IdentityRemoved => {
                "A way to log in to your account at {name} was removed at {time}:\nan identity at \
                 another provider.\n\n\
                 If it was not you, change your password at once:\n\n\
                 {app}\n"
            }
            Self::AccountDeleted => {
                "Your account at {name} was deleted at {time}, with all its todos.\n\n\
                 If it was not you, contact the operator:\n\n\
                 {app}\n"
            }
            Self::Reminder => {
                "A reminder of your todo at {name}:\n\n\
                 {title}\n\n\
                 It is due {due}.\n\n\
                 {app}\n"
            }
        }
    }
}
