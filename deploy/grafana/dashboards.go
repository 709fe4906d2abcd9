package main

// Dashboards are the pages, in the order in which somebody who looks for a fault opens them.
func Dashboards() []Dashboard {
	return []Dashboard{pipeline(), relay(), groups(), failures(), tenants()}
}

func variable(name, query string) Variable {
	return Variable{Name: name, Label: name, Query: query}
}

func byStage() []Variable {
	return []Variable{variable("stage", "label_values(leat_breaker_state, stage)")}
}

func pipeline() Dashboard {
	return Dashboard{
		Name: "pipeline", Title: "Leat: pipeline", Description: "Do changes arrive, how soon, and how many do not?", Variables: byStage(),
		Rows: []Row{
			{"Now", []Panel{
				number("Oldest change on its way to Kafka", "s", "0 if everything that was read from an outbox is delivered.",
					q(`max(leat_outbox_oldest_unpublished_seconds)`, "")),
				number("Records that wait", "short", "Up to the last stable offset, by stage.", q(`sum by (stage) (leat_lag_records{stage=~"$stage"})`, "{{stage}}")),
				number("Breakers", "none", "0: the target works. 2: it is down, and the stage waits.", q(`max by (stage) (leat_breaker_state{stage=~"$stage"})`, "{{stage}}")),
				number("Keys that wait for a retry", "short", "", q(`sum by (stage) (leat_parked_keys{stage=~"$stage"})`, "{{stage}}")),
				number("Dead letters in 24 h", "short", "", q(`sum by (stage) (increase(leat_dlq_total{stage=~"$stage"}[24h]))`, "{{stage}}"),
					q(`sum(increase(leat_relay_dead_letters_total[24h]))`, "relay")),
				number("Processes", "short", "Of each stage, as far as Prometheus sees them.", q(`count by (stage) (leat_breaker_state{stage=~"$stage"})`, "{{stage}}"),
					q(`count(leat_relay_owned_sources)`, "relay")),
			}},
			{"From the change to the commit of each stage", []Panel{
				graph("Time to arrive", "s", "Half of the records, 95 and 99 of a hundred. A replay reads old records: its times say nothing.",
					q(`histogram_quantile(0.5, sum by (stage, le) (rate(leat_end_to_end_seconds_bucket{stage=~"$stage"}[$__rate_interval])))`, "{{stage}} 50 %"),
					q(`histogram_quantile(0.95, sum by (stage, le) (rate(leat_end_to_end_seconds_bucket{stage=~"$stage"}[$__rate_interval])))`, "{{stage}} 95 %"),
					q(`histogram_quantile(0.99, sum by (stage, le) (rate(leat_end_to_end_seconds_bucket{stage=~"$stage"}[$__rate_interval])))`, "{{stage}} 99 %")),
				graph("Too late, of the last hour", "percentunit", "The objective: at most 1 % later than 60 s.",
					q(`1 - sum by (stage) (rate(leat_end_to_end_seconds_bucket{stage=~"$stage", le=~"60(\\.0)?"}[1h])) / (sum by (stage) (rate(leat_end_to_end_seconds_count{stage=~"$stage"}[1h])) > 0)`, "{{stage}}")),
				graph("Given up, of the last hour", "percentunit", "The objective: at most 0.1 %.",
					q(`sum by (stage) (rate(leat_records_total{stage=~"$stage", outcome="dead_letter"}[1h])) / (sum by (stage) (rate(leat_records_total{stage=~"$stage", outcome!~"parked|retry|paused"}[1h])) > 0)`, "{{stage}}")),
			}},
			{"Flow", []Panel{
				graph("Rows relayed", "ops", "", q(`sum by (source) (rate(leat_relay_rows_total[$__rate_interval]))`, "{{source}}")),
				graph("Records settled", "ops", "By what became of them.", q(`sum by (stage, outcome) (rate(leat_records_total{stage=~"$stage"}[$__rate_interval]))`, "{{stage}} {{outcome}}")),
			}},
			{"Behind", []Panel{
				graph("Records behind", "short", "Up to the last stable offset.", q(`sum by (stage, topic) (leat_lag_records{stage=~"$stage"})`, "{{stage}} {{topic}}")),
				graph("Time behind", "s", "Of the partition that is farthest behind.", q(`max by (stage, topic) (leat_lag_seconds{stage=~"$stage"})`, "{{stage}} {{topic}}")),
			}},
			{"Operators", []Panel{
				graph("Paused", "short", "Stages that are paused by order, and tenants of them.", q(`max by (stage) (leat_paused{stage=~"$stage"})`, "{{stage}}"),
					q(`max by (stage) (leat_paused_tenants{stage=~"$stage"})`, "tenants of {{stage}}"), q(`max by (source) (leat_relay_paused)`, "source {{source}}")),
				{Title: "Versions", Kind: "table", Unit: "short", Queries: []Query{q(`count by (version, go_version) (leat_build_info)`, "")}},
			}},
		},
	}
}

func relay() Dashboard {
	return Dashboard{
		Name: "relay", Title: "Leat: relay", Description: "From the outbox of each source to Kafka.",
		Variables: []Variable{variable("source", "label_values(leat_relay_rows_total, source)")},
		Rows: []Row{
			{"Is it relayed?", []Panel{
				graph("Oldest row that is read and not delivered", "s", "", q(`max by (source) (leat_outbox_oldest_unpublished_seconds{source=~"$source"})`, "{{source}}")),
				graph("Since the outbox was last read", "s", "", q(`min by (source) (leat_relay_last_read_age_seconds{source=~"$source"})`, "{{source}}")),
				graph("Rows beyond the cursor", "short", "Gaps of rolled back transactions count too.", q(`max by (source) (leat_relay_lag_rows{source=~"$source"})`, "{{source}}")),
			}},
			{"State", []Panel{
				graph("Relayed", "none", "1: rows flow. 0: it waits for Kafka, a topic, the database or the group.", q(`max by (source) (leat_relay_running{source=~"$source"})`, "{{source}}")),
				graph("Refused", "none", "1: the cursor does not belong to the database, and a person must decide.", q(`max by (source) (leat_relay_refused{source=~"$source"})`, "{{source}}")),
				graph("Sources of each process", "short", "", q(`leat_relay_owned_sources`, "{{instance}}")),
			}},
			{"Flow", []Panel{
				graph("Rows", "ops", "", q(`sum by (source) (rate(leat_relay_rows_total{source=~"$source"}[$__rate_interval]))`, "{{source}}")),
				graph("Transactions", "ops", "Aborted ones are done again; the outcome of failed ones is read back from the cursor.",
					q(`sum by (source, result) (rate(leat_relay_transactions_total{source=~"$source"}[$__rate_interval]))`, "{{source}} {{result}}")),
				graph("Rows of a transaction", "short", "", q(`histogram_quantile(0.5, sum by (le) (rate(leat_relay_batch_rows_bucket[$__rate_interval])))`, "50 %"),
					q(`histogram_quantile(0.95, sum by (le) (rate(leat_relay_batch_rows_bucket[$__rate_interval])))`, "95 %")),
			}},
			{"Time", []Panel{
				graph("To read a batch", "s", "", q(`histogram_quantile(0.5, sum by (le) (rate(leat_relay_read_seconds_bucket[$__rate_interval])))`, "50 %"),
					q(`histogram_quantile(0.95, sum by (le) (rate(leat_relay_read_seconds_bucket[$__rate_interval])))`, "95 %")),
				graph("Of a transaction in Kafka", "s", "", q(`histogram_quantile(0.5, sum by (le) (rate(leat_relay_transaction_seconds_bucket[$__rate_interval])))`, "50 %"),
					q(`histogram_quantile(0.95, sum by (le) (rate(leat_relay_transaction_seconds_bucket[$__rate_interval])))`, "95 %")),
			}},
			{"Out of the ordinary", []Panel{
				graph("Rows that came late", "ops", "Committed after rows with higher ids: long transactions, nothing wrong.",
					q(`sum by (source) (rate(leat_relay_late_rows_total{source=~"$source"}[$__rate_interval]))`, "{{source}}")),
				graph("Dead letters in an hour", "short", "", q(`sum by (source, reason) (increase(leat_relay_dead_letters_total{source=~"$source"}[1h]))`, "{{source}} {{reason}}")),
				graph("Taken over by another relay, in an hour", "short", "While this one still held the source.", q(`sum by (source) (increase(leat_relay_fenced_total{source=~"$source"}[1h]))`, "{{source}}")),
			}},
		},
	}
}

func groups() Dashboard {
	return Dashboard{
		Name: "groups", Title: "Leat: groups and partitions", Description: "What each stage does in each partition.",
		Variables: append(byStage(), variable("topic", `label_values(leat_lag_records{stage=~"$stage"}, topic)`)),
		Rows: []Row{
			{"Partitions", []Panel{
				graph("Records behind", "short", "Up to the last stable offset.", q(`max by (stage, topic, partition) (leat_lag_records{stage=~"$stage", topic=~"$topic"})`, "{{topic}}/{{partition}}")),
				graph("Time behind", "s", "", q(`max by (stage, topic, partition) (leat_lag_seconds{stage=~"$stage", topic=~"$topic"})`, "{{topic}}/{{partition}}")),
				graph("Offsets settled", "ops", "", q(`clamp_min(deriv((max by (stage, topic, partition) (leat_settled_offset{stage=~"$stage", topic=~"$topic"}))[5m:15s]), 0)`, "{{topic}}/{{partition}}")),
			}},
			{"Dangers", []Panel{
				graph("Held up by an open transaction", "s", "The last stable offset stands still: nobody reads past it.",
					q(`max by (topic, partition) (leat_lso_stuck_seconds{topic=~"$topic"})`, "{{topic}}/{{partition}}")),
				graph("Records between the start of the log and the offset", "short", "Below 0, records were deleted before they were read.",
					q(`min by (stage, topic, partition) (leat_retention_margin_records{stage=~"$stage", topic=~"$topic"})`, "{{topic}}/{{partition}}")),
				graph("Keys that wait for a retry", "short", "", q(`sum by (stage) (leat_parked_keys{stage=~"$stage"})`, "{{stage}}")),
			}},
			{"Transactions", []Panel{
				graph("Transactions", "ops", "", q(`sum by (stage, result) (rate(leat_txn_total{stage=~"$stage"}[$__rate_interval]))`, "{{stage}} {{result}}")),
				graph("Aborted, in 15 minutes", "short", "A few after a rebalance are normal.", q(`sum by (stage, reason) (increase(leat_txn_abort_total{stage=~"$stage"}[15m]))`, "{{stage}} {{reason}}")),
				graph("Partitions taken away, watchdog", "short", "In 15 minutes.", q(`sum by (stage) (increase(leat_rebalance_total{stage=~"$stage"}[15m]))`, "{{stage}} rebalances"),
					q(`sum by (stage) (increase(leat_watchdog_trips_total{stage=~"$stage"}[15m]))`, "{{stage}} cancelled batches")),
			}},
			{"Kafka", []Panel{
				graph("Read and written", "Bps", "By all clients, relay and index included.", q(`sum by (instance) (rate(leat_kafka_read_bytes_total[$__rate_interval]))`, "{{instance}} read"),
					q(`sum by (instance) (rate(leat_kafka_write_bytes_total[$__rate_interval]))`, "{{instance}} written")),
				graph("Waiting in the clients", "short", "", q(`sum by (instance) (leat_kafka_buffered_produce_records)`, "{{instance}} to be produced"),
					q(`sum by (instance) (leat_kafka_buffered_fetch_records)`, "{{instance}} to be handled")),
				graph("Memory and processor", "short", "", q(`process_resident_memory_bytes{job="leat"}`, "{{instance}} bytes"), q(`rate(process_cpu_seconds_total{job="leat"}[$__rate_interval])`, "{{instance}} cores")),
			}},
		},
	}
}

func failures() Dashboard {
	return Dashboard{
		Name: "failures", Title: "Leat: failures and proof", Description: "What failed, what waits for a decision, and whether the books agree.", Variables: byStage(),
		Rows: []Row{
			{"Records", []Panel{
				graph("Dead letters in an hour", "short", "", q(`sum by (stage, disposition) (increase(leat_dlq_total{stage=~"$stage"}[1h]))`, "{{stage}} {{disposition}}")),
				graph("Retries", "ops", "", q(`sum by (stage) (rate(leat_retry_scheduled_total{stage=~"$stage"}[$__rate_interval]))`, "{{stage}}")),
				graph("Retries after their time", "s", "95 of a hundred.", q(`histogram_quantile(0.95, sum by (stage, le) (rate(leat_retry_late_seconds_bucket{stage=~"$stage"}[1h])))`, "{{stage}}")),
			}},
			{"Waiting keys", []Panel{
				graph("Keys that wait for a retry", "short", "", q(`sum by (stage) (leat_parked_keys{stage=~"$stage"})`, "{{stage}}")),
				graph("The one that has waited longest", "s", "Since its first failure.", q(`max by (stage) (leat_parked_oldest_seconds{stage=~"$stage"})`, "{{stage}}")),
				graph("Breakers", "none", "2: the target is down.", q(`max by (stage) (leat_breaker_state{stage=~"$stage"})`, "{{stage}}")),
			}},
			{"Dead letters without a decision", []Panel{
				graph("Open", "short", "", q(`max by (group) (leat_dlq_open)`, "{{group}}")),
				graph("The oldest", "s", "", q(`max by (group) (leat_dlq_oldest_seconds)`, "{{group}}")),
				graph("Until the first is deleted", "s", "Nothing, as long as their topics keep them for ever.", q(`min by (group) (leat_dlq_expires_seconds)`, "{{group}}")),
			}},
			{"Incidents", []Panel{
				graph("By state", "short", "", q(`max by (state) (leat_incidents)`, "{{state}}")),
				graph("Changes of state in an hour", "short", "", q(`sum by (state) (increase(leat_incident_moves_total[1h]))`, "{{state}}")),
				graph("Notifications", "short", "Waiting, and given up within a day.", q(`max by (receiver) (leat_notify_pending)`, "{{receiver}} waiting"),
					q(`sum by (receiver) (increase(leat_notify_failed_total[24h]))`, "{{receiver}} given up")),
			}},
			{"Proof and index", []Panel{
				graph("The books agree", "none", "1: the last verification of the source found no difference.", q(`min by (source) (leat_verify_agrees)`, "{{source}}")),
				graph("Differences", "short", "", q(`max by (source) (leat_verify_differences)`, "{{source}} different"), q(`max by (source) (leat_verify_waiting)`, "{{source}} not arrived yet")),
				graph("Since the last verification", "s", "", q(`min by (source) (leat_verify_age_seconds)`, "{{source}}")),
			}},
			{"Operators", []Panel{
				graph("Index behind", "short", "", q(`max by (projection) (leat_index_lag_records)`, "{{projection}}")),
				graph("Changes by people in an hour", "short", "From the audit log.", q(`max by (action) (increase(leat_audit_actions_total[1h]))`, "{{action}}")),
			}},
		},
	}
}

func tenants() Dashboard {
	const of = ` from leat_control.outcomes where $__timeFilter(hour) and tenant in (${tenant:sqlstring})`
	graph := func(title, help, sql string) Panel {
		return Panel{Title: title, Help: help, Unit: "short", SQL: true, Queries: []Query{q(sql, "")}}
	}
	return Dashboard{
		Name: "tenants", Title: "Leat: tenants", Description: "What became of the records of each tenant, by hour. From the control database: labels of metrics must not grow with tenants.",
		Variables: []Variable{variable("tenant", "select distinct tenant from leat_control.outcomes order by 1")},
		Rows: []Row{
			{"By hour", []Panel{
				graph("Records", "By tenant.", `select hour as time, tenant as metric, sum(count)::float8 as value`+of+` group by 1, 2 order by 1`),
				graph("What became of them", "", `select hour as time, stage || ' ' || outcome as metric, sum(count)::float8 as value`+of+` group by 1, 2 order by 1`),
			}},
			{"In this time", []Panel{
				{Title: "Tenants", Kind: "table", Unit: "short", SQL: true, Queries: []Query{q(`select tenant, stage, entity, outcome, sum(count)::bigint as records`+of+
					` group by 1, 2, 3, 4 order by 1, 2, 3, 5 desc`, "")}},
				{Title: "Refused and filtered, and why", Kind: "table", Unit: "short", SQL: true, Queries: []Query{q(`select tenant, stage, entity, outcome, detail, sum(count)::bigint as records`+of+
					` and detail <> '' group by 1, 2, 3, 4, 5 order by 6 desc limit 100`, "")}},
			}},
		},
	}
}
