/*
 * A filter in C, against the contract's core form (sdk/README.md) and nothing else: no SDK, no C library, no component
 * tools. It turns away requests that do not say who sends them (no User-Agent) and marks every response.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size;

/* --- The contract: what this filter uses of it --------------------------------------------------------------- */

#define PACKAGE "tidegate:filter/"
#define VERSION "@0.1.1"
#define IMPORT(interface, name) \
    __attribute__((import_module(PACKAGE interface VERSION), import_name(name))) extern
#define CALLBACK(name) __attribute__((export_name(PACKAGE "callbacks" VERSION "#" name)))

/* A string or a list of bytes, as it stands in memory. */
struct bytes {
    const void *at;
    u32 length;
};

struct field {
    struct bytes name;
    struct bytes value;
};

struct optional_bytes {
    u8 given;
    struct bytes value;
};

/* result<_, refusal> */
struct outcome {
    u8 refused;
    u8 why;
};

enum part { REQUEST, REQUEST_TRAILERS, RESPONSE, RESPONSE_TRAILERS };
enum flow { PROCEED, HOLD, ANSWER };
enum level { ERROR, WARN, INFO, DEBUG, TRACE };
enum body_mode { STREAM, WHOLE, ON_HOLD };
enum { PHASE_REQUEST_HEAD = 1 << 0, PHASE_RESPONSE_HEAD = 1 << 3 };

struct body_wish {
    u8 mode;
    u32 limit;
    u8 overflow;
};

/* result<interests, string>: what stands behind `refused` depends on it. */
struct configured {
    u8 refused;
    union {
        struct {
            u8 phases;
            struct body_wish request_body;
            struct body_wish response_body;
        } interests;
        struct bytes why;
    };
};

IMPORT("exchange", "get")
void get(enum part part, const char *name, u32 name_length, struct optional_bytes *result);

IMPORT("exchange", "set")
void set(enum part part, const char *name, u32 name_length, const char *value, u32 value_length,
         struct outcome *result);

IMPORT("exchange", "answer")
void answer(u32 status, const struct field *fields, u32 count, const char *body, u32 length,
            struct outcome *result);

IMPORT("log", "write")
void log_write(enum level level, const char *message, u32 length);

/* A text with its length, for the pairs that the contract takes. */
#define TEXT(text) (text), (sizeof(text) - 1)
#define BYTES(text) { (text), sizeof(text) - 1 }

/* --- Memory ---------------------------------------------------------------------------------------------------- */

/* What the host hands over is wanted until the callback returns, so one arena serves, emptied at each callback. */
static _Alignas(8) u8 arena[128 * 1024];
static size used;

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size old_size, size align, size wanted) {
    (void)old;
    (void)old_size;
    size at = (used + align - 1) & ~(align - 1);
    if (at > sizeof arena || wanted > sizeof arena - at) {
        __builtin_trap();
    }
    used = at + wanted;
    return arena + at;
}

/* --- The filter ------------------------------------------------------------------------------------------------ */

CALLBACK("configure")
const struct configured *configure(const char *config, u32 length) {
    static struct configured result;
    used = 0;
    if (length > 0 && !(length == 2 && config[0] == '{' && config[1] == '}')) {
        static const struct bytes why = BYTES("this filter takes no configuration: remove `config`");
        result.refused = 1;
        result.why = why;
        return &result;
    }
    result.interests.phases = PHASE_REQUEST_HEAD | PHASE_RESPONSE_HEAD;
    result.interests.request_body.mode = ON_HOLD;
    result.interests.response_body.mode = ON_HOLD;
    return &result;
}

CALLBACK("request-head")
enum flow request_head(u64 id, u32 end) {
    (void)id;
    (void)end;
    used = 0;
    struct optional_bytes agent;
    get(REQUEST, TEXT("user-agent"), &agent);
    if (agent.given && agent.value.length > 0) {
        return PROCEED;
    }
    static const struct field fields[] = {
        {BYTES("content-type"), BYTES("text/plain; charset=utf-8")},
    };
    struct outcome outcome;
    answer(400, fields, 1, TEXT("say who you are: send a User-Agent\n"), &outcome);
    return ANSWER;
}

CALLBACK("response-head")
enum flow response_head(u64 id, u32 end) {
    (void)id;
    (void)end;
    used = 0;
    struct outcome outcome;
    set(RESPONSE, TEXT("x-filtered-by"), TEXT("c"), &outcome);
    if (outcome.refused) {
        log_write(WARN, TEXT("the response could not be marked"));
    }
    return PROCEED;
}

/*
 * Phases that were not asked for are never called. A core module may leave their callbacks out; they stand here so that
 * component tools can wrap this module, for the world has them all.
 */

CALLBACK("request-body")
enum flow request_body(u64 id, u32 length, u32 end) {
    (void)id, (void)length, (void)end;
    return PROCEED;
}

CALLBACK("request-trailers")
enum flow request_trailers(u64 id) {
    (void)id;
    return PROCEED;
}

CALLBACK("response-body")
enum flow response_body(u64 id, u32 length, u32 end) {
    (void)id, (void)length, (void)end;
    return PROCEED;
}

CALLBACK("response-trailers")
enum flow response_trailers(u64 id) {
    (void)id;
    return PROCEED;
}

CALLBACK("log")
void log_(u64 id) {
    (void)id;
}

/* What `tidegate inspect` and `/plugins` say of it: a custom section, which C has no word for. */
__asm__(".section \".custom_section.tidegate:manifest\",\"\",@\n"
        ".ascii \"{\\\"name\\\":\\\"c-filter\\\",\\\"version\\\":\\\"0.1.0\\\",\"\n"
        ".ascii \"\\\"description\\\":\\\"Turns away requests without a User-Agent and marks responses.\\\"}\"\n"
        ".text\n");
