// Package deadletters is the office of the records that were given up: it knows every dead letter and what became of it, and lets people
// look at them, send them back to the group that gave them up (redrive), try beforehand what would happen (dry run), correct one, or
// put them aside.
//
// The dead-letter topics stay the truth. Their index in the control database (Projection) can be thrown away and read anew; only what
// people decided, and how far redrives have come, is kept beside it. Nothing here deletes a record from a topic, processes one for
// good, or writes to a source topic: a redriven record goes to the retry topic of its own group, so no other group sees it.
package deadletters
