// Package normalize is the stage that turns source records into finance records by mapping files: strict YAML, one file
// for each entity of a source system, compiled once at start (Load) into a Set.
//
// Every output agrees with its contract in topics: values are checked, typed, while they are written, so that no
// general JSON Schema validator runs on the way. A record that does not fit is a permanent failure that names the field,
// what was found and what was wanted; it is never bent into shape. Amounts are read from the source's text and written as
// text: no float is involved anywhere.
//
// The package keeps no state and knows neither Kafka nor a target.
package normalize
