//! Why somebody is not let in. Each method has its reasons; what is answered for them stands in `answers`.

/// Why a token was refused. The text goes, as `error_description`, to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    TooLong,
    Malformed,
    Algorithm,
    Type,
    Critical,
    UnknownKey,
    Signature,
    NoExpiry,
    Expired,
    NotYetValid,
    TooOld,
    BadTime,
    Issuer,
    Audience,
    Denied,
    Inactive,
}

impl Rejection {
    /// A sentence without quotes, fit for a quoted-string.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Rejection::TooLong => "the token is too long",
            Rejection::Malformed => "the token is malformed",
            Rejection::Algorithm => "the token's algorithm is not the key's",
            Rejection::Type => "the token is of another type",
            Rejection::Critical => "the token demands an extension that is not understood",
            Rejection::UnknownKey => "the token's key is not known",
            Rejection::Signature => "the token's signature is wrong",
            Rejection::NoExpiry => "the token has no expiry",
            Rejection::Expired => "the token has expired",
            Rejection::NotYetValid => "the token is not valid yet",
            Rejection::TooOld => "the token is too old",
            Rejection::BadTime => "the token has a time that is no number",
            Rejection::Issuer => "the token's issuer is not accepted",
            Rejection::Audience => "the token is for another audience",
            Rejection::Denied => "the token was withdrawn",
            Rejection::Inactive => "the token is not active",
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No credential.
    Missing,
    /// More credentials than one of a kind: nobody can say which counts.
    Ambiguous,
    /// A key that nobody has, or whose time is over.
    UnknownKey,
    /// A name and password that do not go together, or can't be read.
    Password,
    /// Too many passwords are being hashed. Seconds after which it is worth another try.
    Busy(u64),
    /// A token that does not hold.
    Token(Rejection),
    /// A signature that does not hold, for this reason.
    Signature(&'static str),
    /// The digest of the body is not that of the body.
    Digest,
    /// A certificate that nobody knows.
    Certificate,
    /// An address that may not come.
    Address,
    /// Known, but without the role.
    Role,
    /// Known, but the token lacks this scope.
    Scope(String),
    /// Known, but a claim is not what it must be.
    Claim,
    /// Somebody else can't say it now. Seconds after which it is worth another try.
    Unavailable(u64),
}
