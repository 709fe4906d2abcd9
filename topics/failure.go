package topics

// Names of the headers that a record on a retry or dead-letter topic carries beside its own. All are UTF-8 text, occur
// once, and replace those of the hop before. Times are RFC 3339 in UTC with nanoseconds; numbers are decimal.
const (
	HeaderOriginalTopic     = "leat_original_topic"
	HeaderOriginalPartition = "leat_original_partition"
	HeaderOriginalOffset    = "leat_original_offset"
	HeaderOriginalTime      = "leat_original_timestamp"
	HeaderOriginalKey       = "leat_original_key"      // on retry topics only: the record's own key is the parked id
	HeaderOriginalKeyHash   = "leat_original_key_hash" // first 16 hex digits of SHA-256
	HeaderGroup             = "leat_group"
	HeaderAttempt           = "leat_attempt" // attempts made so far
	HeaderFirstFailedAt     = "leat_first_failed_at"
	HeaderLastFailedAt      = "leat_last_failed_at"
	HeaderNotBefore         = "leat_not_before" // on retry topics only
	HeaderErrorClass        = "leat_error_class"
	HeaderErrorCode         = "leat_error_code"
	HeaderDisposition       = "leat_disposition"
	HeaderFingerprint       = "leat_fingerprint"
	HeaderErrorMessage      = "leat_error_message" // at most 1 KiB
	HeaderErrorStack        = "leat_error_stack"   // at most 4 KiB; panics only
	HeaderHandler           = "leat_handler"
	HeaderAppVersion        = "leat_app_version"
	HeaderReplayCount       = "leat_replay_count"
	HeaderReplayID          = "leat_replay_id"
	HeaderResetGeneration   = "leat_reset_generation"
	HeaderOutboxID          = "leat_outbox_id" // on the relay's dead letters only
	HeaderSourceSystem      = "leat_source_system"
	HeaderWriter            = "leat_writer" // on retry topics only: the session that wrote the record
)

// Disposition says why a record came to a dead-letter topic or waits on a retry topic.
type Disposition string

// The dispositions.
const (
	DispositionPermanent Disposition = "permanent"  // no retry can help
	DispositionExhausted Disposition = "exhausted"  // the last attempt failed
	DispositionManual    Disposition = "manual"     // an operator moved it
	DispositionRetry     Disposition = "retry"      // parked: waits for its next attempt
	DispositionBlockedBy Disposition = "blocked-by" // parked: waits behind an earlier record of its key
)
