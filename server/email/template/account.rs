//! Mails about someone's own account.

use super::mail::mail;
use super::value::{Line, Link};

mail! {
    /// Gives a new user, for whom an account was set up, what they need to sign in.
    UserWelcome = "user_welcome", [
        "user_welcome/subject.txt", "user_welcome/body.html", "user_welcome/body.txt"
    ] {
        /// Name of the new user.
        user_name: Option<Line> = r#""Ada""#,
        /// Name to sign in with.
        username: Line = r#""ada""#,
        /// Email address of the account.
        email: Option<Line> = r#""ada@example.com""#,
        /// Password to sign in with once. A single-use link as `login_url` is the safer way.
        temp_password: Option<Line> = r#""correct-horse-42""#,
        /// Where to sign in.
        login_url: Option<Link> = r#""https://app.example.com/login""#,
        /// Role of the new user.
        role: Option<Line> = r#""Manager""#,
    }
}

mail! {
    /// Welcomes someone who signed up.
    Welcome = "welcome", ["welcome/subject.txt", "welcome/body.html", "welcome/body.txt"] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// Where the recipient's dashboard is.
        dashboard_url: Option<Link> = r#""https://app.example.com/dashboard""#,
    }
}

mail! {
    /// Lets someone choose a new password.
    PasswordReset = "password_reset", [
        "password_reset/subject.txt", "password_reset/body.html", "password_reset/body.txt"
    ] {
        /// Name of the recipient.
        user_name: Option<Line> = r#""Ada""#,
        /// Where to choose a new password.
        reset_url: Link = r#""https://app.example.com/reset?token=4fzyo82mvyr1&lang=en""#,
        /// How long the link works, in words; a bare number counts minutes.
        expires_in: Option<Line> = "30",
    }
}
