//! What the operator writes: types that serde reads and that the manifest's schema is made of. Checks nothing; each method's
//! file turns its part into what it works with.

use serde_json::Value;
use tidegate_sdk::prelude::*;

use crate::pairs::Pairs;

/// What the operator configures: at least one method, or `ip`.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The methods in the order in which they are tried; the first that finds its credential decides. Default: those that are configured, in the order client-certificate, signature, jwt, introspection, basic, api-key.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// Whether requests without a credential pass, marked as `anonymous`. A wrong credential never passes. Default: false.
    #[serde(default)]
    pub optional: bool,
    /// The realm in `WWW-Authenticate`. Default: api.
    pub realm: Option<String>,
    /// The namespace of the store that holds what workers share: keys of an issuer, replay windows, deny lists, API keys. It must be granted: `allow = { store = ["auth"] }`. Default: auth.
    pub store: Option<String>,
    /// Requests that need no credential. Identity fields are removed from them all the same.
    #[serde(default)]
    pub skip: Vec<SkipConfig>,
    /// Whether CORS preflights (OPTIONS with Origin and Access-Control-Request-Method) pass without a credential. Default: false.
    #[serde(default)]
    pub preflight: bool,
    /// Roles of which the consumer must have one, whatever the method. Without one: 403.
    #[serde(default)]
    pub require_roles: Vec<String>,
    /// The fields that tell the upstream who asks.
    #[serde(default)]
    pub headers: HeadersConfig,
    /// How refusals look.
    #[serde(default)]
    pub answers: AnswersConfig,
    /// Which client addresses may come at all.
    pub ip: Option<IpConfig>,
    /// API keys.
    pub api_key: Option<ApiKeyConfig>,
    /// Names and passwords (RFC 7617).
    pub basic: Option<BasicConfig>,
    /// JSON Web Tokens (RFC 7519).
    pub jwt: Option<JwtConfig>,
    /// Tokens that a server is asked about (RFC 7662).
    pub introspection: Option<IntrospectionConfig>,
    /// Signed requests (RFC 9421, hmac-sha256).
    pub signature: Option<SignatureConfig>,
    /// Client certificates, which the listener has verified.
    pub client_certificate: Option<CertificateConfig>,
}

/// A way to say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The TLS connection's certificate.
    ClientCertificate,
    /// `Signature` and `Signature-Input`.
    Signature,
    /// A token that is verified here.
    Jwt,
    /// A token that a server is asked about.
    Introspection,
    /// Name and password.
    Basic,
    /// A key.
    ApiKey,
}

/// Requests that need no credential.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SkipConfig {
    /// The path in its normal form; with `*` at its end, all paths that begin so.
    pub path: String,
    /// The methods for which this holds. Default: all.
    #[serde(default)]
    pub methods: Vec<String>,
}

/// The fields that tell the upstream who asks. A client's own, in any spelling, are removed first. An empty name: no such field.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HeadersConfig {
    /// The consumer's name. Default: x-consumer.
    pub consumer: Option<String>,
    /// The consumer's roles, with commas between them. Default: x-roles.
    pub roles: Option<String>,
    /// The method that decided, or `anonymous`. Default: none.
    pub method: Option<String>,
}

/// How refusals look.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AnswersConfig {
    /// Where browsers are sent (302) that bring no credential: GET or HEAD with `text/html` in Accept. `{url}` stands for the address that was asked for, percent-encoded.
    pub login: Option<String>,
    /// The text of 401, in place of a sentence that says what is wrong.
    pub unauthorized: Option<String>,
    /// The text of 403, in place of a sentence that says what is wrong.
    pub forbidden: Option<String>,
}

/// Which client addresses may come at all, before any credential is looked at.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IpConfig {
    /// Networks, as in `10.0.0.0/8` or `2001:db8::/32`, or single addresses. If there are any, only these may come.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Networks that may not come, also if they are among the allowed ones.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// Where API keys are looked for, and whose they are.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The field that carries the key. Default: x-api-key, if neither query nor cookie is given.
    pub header: Option<String>,
    /// The query's parameter that carries the key.
    pub query: Option<String>,
    /// The cookie that carries the key.
    pub cookie: Option<String>,
    /// Whether the key is removed from what is forwarded. Default: false.
    #[serde(default)]
    pub hide: bool,
    /// Who has a key.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// Whether keys are looked up in the store too: under `key/` and the key's SHA-256 digest in hexadecimal, a JSON object with `name` and, if wanted, `roles` and `expires`. Default: false.
    #[serde(default)]
    pub in_store: bool,
    /// Seconds for which a key from the store is remembered. Default: 60.
    pub remember_seconds: Option<u32>,
}

/// One consumer with a key.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Consumer {
    /// The consumer's name.
    pub name: String,
    /// The key's SHA-256 digest in hexadecimal (`printf %s KEY | sha256sum`).
    pub sha256: String,
    /// The consumer's roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When the key ends: `2027-01-31` (its beginning, in UTC) or `2027-01-31T12:00:00Z`.
    pub expires: Option<String>,
}

/// Names and passwords. A hash takes far longer than filters may by default: `limits = { time = "2s" }` of the filter.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BasicConfig {
    /// Lines of an htpasswd file, `NAME:HASH`: bcrypt (`htpasswd -B`), argon2id or SHA-512-crypt (`mkpasswd -m sha512crypt`).
    #[serde(default)]
    pub users: Vec<String>,
    /// The content of an htpasswd file.
    pub htpasswd: Option<String>,
    /// Roles by name.
    #[serde(default)]
    pub roles: Pairs<Vec<String>>,
    /// Whether the field Authorization is removed from what is forwarded. Default: false.
    #[serde(default)]
    pub hide: bool,
    /// Seconds for which a right answer is remembered; 0: not at all. Default: 300.
    pub remember_seconds: Option<u32>,
    /// Passwords that may be hashed at a time, over all workers; past it: 429. Half of it for one client address. Default: 8.
    pub hashes_at_once: Option<u32>,
    /// Passwords that may be hashed a second, over all workers; past it: 429. Half of it for one client address. Default: 20.
    pub hashes_per_second: Option<u32>,
}

/// Which tokens are taken.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JwtConfig {
    /// Keys that sign tokens.
    #[serde(default)]
    pub keys: Vec<KeyConfig>,
    /// A key set (RFC 7517) that is fetched.
    pub jwks: Option<JwksConfig>,
    /// An issuer that is asked where its key set is (OpenID Connect discovery).
    pub oidc: Option<OidcConfig>,
    /// The algorithms that are taken, of those that a key allows. Default: all.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// The only issuer (`iss`) taken. With `oidc`: that issuer, unless another is given.
    pub issuer: Option<String>,
    /// Audiences, of which a token must be for one.
    #[serde(default)]
    pub audience: Vec<String>,
    /// The only `typ` taken, such as `at+jwt` (RFC 9068). Default: any.
    pub typ: Option<String>,
    /// Seconds by which clocks may differ. Default: 30.
    pub leeway_seconds: Option<u32>,
    /// The greatest age in seconds, counted from `iat`, which is then required.
    pub max_age_seconds: Option<u32>,
    /// The longest token in bytes. Default: 8192.
    pub max_size: Option<u32>,
    /// Whether tokens without `exp` are taken. Default: false.
    #[serde(default)]
    pub allow_without_expiry: bool,
    /// Where tokens are looked for. Default: Authorization with the scheme Bearer.
    #[serde(default)]
    pub from: Vec<TokenPlace>,
    /// Whether the token is removed from what is forwarded. Default: false.
    #[serde(default)]
    pub hide: bool,
    /// Scopes (claim `scope` or `scp`) that a token must have, all of them. Without: 403.
    #[serde(default)]
    pub require_scopes: Vec<String>,
    /// What claims must be. Otherwise: 403.
    #[serde(default)]
    pub require: Vec<RuleConfig>,
    /// Claims that are passed on, and the fields for them: `{ sub = "x-user" }`. A name with dots leads into objects.
    #[serde(default)]
    pub claims: Pairs<String>,
    /// Claims that are left as properties `claim.NAME` for later filters, besides those of `claims`.
    #[serde(default)]
    pub properties: Vec<String>,
    /// The claim that is the consumer's name. Default: sub.
    pub consumer: Option<String>,
    /// The claim that holds the roles, a list or a text with spaces. Default: roles.
    pub roles: Option<String>,
    /// Verified tokens that each instance remembers until they expire; 0: none. Default: 500.
    pub remember: Option<u32>,
    /// Whether `jti/` and the claim `jti` are looked up in the store, and tokens that are found there refused. Default: false.
    #[serde(default)]
    pub deny_list: bool,
}

/// A place where a token may stand: one key.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TokenPlace {
    /// A field. In Authorization behind the scheme Bearer, in any other as the whole value.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A cookie.
    Cookie(String),
}

/// The signature algorithm of a key (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// A key as it is configured: one of `secret`, `public-key` and `jwk`.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyConfig {
    /// The one algorithm that this key is used with. It may be left out for a `jwk` that says its own `alg`, and for P-256, P-384 and Ed25519 keys.
    pub algorithm: Option<Algorithm>,
    /// HS256, HS384, HS512: the secret, at least as many bytes as the hash has: 32, 48, 64.
    pub secret: Option<String>,
    /// The same in base64, for secrets that are no text.
    pub secret_base64: Option<String>,
    /// All others: the public key as PEM (`BEGIN PUBLIC KEY` or `BEGIN RSA PUBLIC KEY`).
    pub public_key: Option<String>,
    /// The key as a JWK (RFC 7517), as a table or as JSON text.
    pub jwk: Option<Value>,
    /// The key's id. A token that names an id is verified with the key of that id only.
    pub kid: Option<String>,
}

/// A key set that is fetched before its first use.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JwksConfig {
    /// The upstream that has it; it must be granted: `allow = { http = ["NAME"] }`.
    pub upstream: String,
    /// Its path, as in `/.well-known/jwks.json`.
    pub path: String,
    /// When and how it is fetched.
    #[serde(default)]
    pub fetch: FetchConfig,
}

/// An issuer that is asked where its key set is.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OidcConfig {
    /// The issuer, an https address as it stands in `iss`. Its configuration is read from its path with `/.well-known/openid-configuration` behind it.
    pub issuer: String,
    /// The upstream that reaches the issuer; it must be granted: `allow = { http = ["NAME"] }`.
    pub upstream: String,
    /// The upstream that has the key set, if it stands on another host than the issuer.
    pub keys_upstream: Option<String>,
    /// When and how it is fetched.
    #[serde(default)]
    pub fetch: FetchConfig,
}

/// When and how a key set is fetched. Workers share what one of them has fetched, through the store.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FetchConfig {
    /// Seconds for which keys count as fresh, if the answer's `Cache-Control: max-age` does not say less. They are fetched anew when four fifths are over. Default: 600.
    pub fresh_seconds: Option<u32>,
    /// Seconds for which keys are used after that when the issuer can't be reached. Default: 86400.
    pub stale_seconds: Option<u32>,
    /// Seconds between two fetches for the sake of an unknown `kid`, at least 10. Default: 60.
    pub cooldown_seconds: Option<u32>,
    /// Milliseconds that a fetch may take. Default: 3000.
    pub timeout_ms: Option<u32>,
}

/// What one claim must be: one test, or none for "there".
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuleConfig {
    /// The claim. A name with dots leads into objects, if there is no claim of the whole name.
    pub claim: String,
    /// It equals this text, number or truth value.
    pub equals: Option<Value>,
    /// It is one of these.
    #[serde(default)]
    pub one_of: Vec<Value>,
    /// It is a list that has this element.
    pub contains: Option<Value>,
    /// It is a text of words with spaces between them, or a list, that has this word.
    pub scope: Option<String>,
    /// It is a text in which this regular expression matches. It is not anchored: write `^` and `$`.
    pub regex: Option<String>,
}

/// A server that is asked about tokens (RFC 7662).
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IntrospectionConfig {
    /// The upstream of the server; it must be granted: `allow = { http = ["NAME"] }`.
    pub upstream: String,
    /// The path, as in `/oauth2/introspect`.
    pub path: String,
    /// The client id with which the server is asked.
    pub client_id: String,
    /// The environment's variable with the client's secret; it must be granted: `allow = { env = ["NAME"] }`.
    pub client_secret_env: Option<String>,
    /// The only issuer (`iss`) taken, if the answer names one.
    pub issuer: Option<String>,
    /// Audiences, of which a token must be for one.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Where tokens are looked for. Default: Authorization with the scheme Bearer.
    #[serde(default)]
    pub from: Vec<TokenPlace>,
    /// Whether the token is removed from what is forwarded. Default: false.
    #[serde(default)]
    pub hide: bool,
    /// Scopes that a token must have, all of them. Without: 403.
    #[serde(default)]
    pub require_scopes: Vec<String>,
    /// What members of the answer must be. Otherwise: 403.
    #[serde(default)]
    pub require: Vec<RuleConfig>,
    /// Members of the answer that are passed on, and the fields for them.
    #[serde(default)]
    pub claims: Pairs<String>,
    /// Members that are left as properties `claim.NAME` for later filters, besides those of `claims`.
    #[serde(default)]
    pub properties: Vec<String>,
    /// The member that is the consumer's name. Default: sub, else username, else client_id.
    pub consumer: Option<String>,
    /// The member that holds the roles. Default: roles.
    pub roles: Option<String>,
    /// Seconds for which a good answer is remembered, but not past the token's `exp`. Default: 60.
    pub remember_seconds: Option<u32>,
    /// Seconds for which a bad answer is remembered. Default: 10.
    pub remember_refused_seconds: Option<u32>,
    /// Tokens that each instance remembers, of each kind. Default: 500.
    pub remember: Option<u32>,
    /// What happens when the server can't be asked. Default: refuse.
    pub when_down: Option<WhenDown>,
    /// With `stale`: seconds for which an answer is used past `remember-seconds`. Default: 300.
    pub stale_seconds: Option<u32>,
    /// Milliseconds that a question may take. Default: 2000.
    pub timeout_ms: Option<u32>,
}

/// What happens when a server can't be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDown {
    /// 503.
    Refuse,
    /// A good answer that was remembered counts for longer; others: 503.
    Stale,
    /// The request passes as `anonymous`.
    Anonymous,
}

/// Signed requests (RFC 9421) with HMAC and a shared secret.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignatureConfig {
    /// Who signs.
    pub keys: Vec<SignerConfig>,
    /// What a signature must cover, in any order and with others. Default: @method, @path, @query; and content-digest for requests with a body.
    #[serde(default)]
    pub components: Vec<String>,
    /// Seconds by which `created` (and Date, if it is covered) may differ from the proxy's clock. Default: 300.
    pub skew_seconds: Option<u32>,
    /// Whether a signature passes once only, which needs the store. Default: true.
    pub once: Option<bool>,
}

/// One who signs.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignerConfig {
    /// The `keyid` of signatures.
    pub id: String,
    /// The secret, at least 32 bytes.
    pub secret: Option<String>,
    /// The same in base64, for secrets that are no text.
    pub secret_base64: Option<String>,
    /// The consumer's name. Default: the id.
    pub consumer: Option<String>,
    /// The consumer's roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Client certificates. `[[server.tls]]` decides which are verified; here it is said whose they are.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CertificateConfig {
    /// What of the certificate is the consumer's name. Default: subject.
    pub consumer: Option<CertificateName>,
    /// Whose certificates are taken, by that name. Default: all that were verified.
    #[serde(default)]
    pub allow: Vec<CertificateRule>,
}

/// What of a certificate is the consumer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// The subject's distinguished name (RFC 4514).
    Subject,
    /// The common name in the subject.
    CommonName,
    /// The first DNS name.
    Dns,
    /// The first URI.
    Uri,
    /// The only URI, which must be a SPIFFE id.
    Spiffe,
    /// The first mail address.
    Email,
    /// The SHA-256 fingerprint in hexadecimal.
    Fingerprint,
}

/// A certificate's name, and what it stands for.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CertificateRule {
    /// The name; with `*` at its end, all names that begin so.
    pub name: String,
    /// The consumer's name. Default: the certificate's.
    pub consumer: Option<String>,
    /// The consumer's roles.
    #[serde(default)]
    pub roles: Vec<String>,
}
