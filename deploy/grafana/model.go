package main

import (
	"encoding/json"
	"fmt"
)

// Dashboard is a page of Grafana.
type Dashboard struct {
	Name, Title, Description string
	Variables                []Variable
	Rows                     []Row
}

// Variable is what a reader can choose. Its values come from Query: PromQL's label_values, or SQL.
type Variable struct{ Name, Label, Query string }

// Row is a line of panels of equal width.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is one picture. Its queries are PromQL; SQL on a dashboard of the control database.
type Panel struct {
	Title, Help, Unit string
	Kind              string // timeseries (default), stat or table
	SQL               bool
	Queries           []Query
}

// Query is what a panel shows, and how its lines are called.
type Query struct{ Expr, Legend string }

func q(expr, legend string) Query { return Query{expr, legend} }

func graph(title, unit, help string, queries ...Query) Panel {
	return Panel{Title: title, Unit: unit, Help: help, Queries: queries}
}

func number(title, unit, help string, queries ...Query) Panel {
	return Panel{Title: title, Unit: unit, Help: help, Kind: "stat", Queries: queries}
}

type object = map[string]any

// source is the datasource of a panel, chosen at the top of the page.
func source(sql bool) object {
	if sql {
		return object{"type": "grafana-postgresql-datasource", "uid": "${control}"}
	}
	return object{"type": "prometheus", "uid": "${prometheus}"}
}

// JSON is d as Grafana imports it.
func (d Dashboard) JSON() ([]byte, error) {
	var panels []object
	id, y := 0, 0
	for _, r := range d.Rows {
		id++
		panels = append(panels, object{
			"id": id, "type": "row", "title": r.Title, "collapsed": false, "panels": []object{},
			"gridPos": object{"h": 1, "w": 24, "x": 0, "y": y},
		})
		y++
		height, width := 8, 24/len(r.Panels)
		for i, p := range r.Panels {
			id++
			o := p.object(id)
			o["gridPos"] = object{"h": height, "w": width, "x": i * width, "y": y}
			panels = append(panels, o)
		}
		y += height
	}
	text, err := json.MarshalIndent(object{
		"uid": "leat-" + d.Name, "title": d.Title, "description": d.Description, "tags": []string{"leat"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "timezone": "browser", "refresh": "30s",
		"time": object{"from": "now-6h", "to": "now"}, "templating": object{"list": d.variables()}, "panels": panels,
		"links": []object{{
			"type": "dashboards", "title": "Leat", "tags": []string{"leat"}, "asDropdown": true, "includeVars": true, "keepTime": true,
		}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing dashboard %s: %w", d.Name, err)
	}
	return append(text, '\n'), nil
}

func (d Dashboard) sql() bool { return d.Rows[0].Panels[0].SQL }

func (d Dashboard) variables() []object {
	choice := object{"name": "prometheus", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
	if d.sql() {
		choice = object{"name": "control", "label": "Control database", "type": "datasource", "query": "grafana-postgresql-datasource"}
	}
	list := []object{choice}
	for _, v := range d.Variables {
		o := object{
			"name": v.Name, "label": v.Label, "type": "query", "datasource": source(d.sql()), "query": v.Query, "refresh": 2,
			"includeAll": true, "multi": true, "sort": 1, "current": object{"text": "All", "value": "$__all"},
		}
		if !d.sql() {
			o["allValue"] = ".*"
		}
		list = append(list, o)
	}
	return list
}

func (p Panel) object(id int) object {
	kind := p.Kind
	if kind == "" {
		kind = "timeseries"
	}
	defaults := object{"unit": p.Unit, "min": 0}
	if kind == "timeseries" {
		defaults["custom"] = object{"fillOpacity": 10, "showPoints": "never", "lineWidth": 1}
	}
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": string(rune('A' + i)), "datasource": source(p.SQL)}
		if p.SQL {
			t["rawSql"], t["rawQuery"], t["editorMode"] = q.Expr, true, "code"
			t["format"] = map[bool]string{true: "table", false: "time_series"}[kind == "table"]
		} else {
			t["expr"], t["legendFormat"], t["instant"], t["range"] = q.Expr, q.Legend, kind != "timeseries", kind == "timeseries"
		}
		targets = append(targets, t)
	}
	return object{
		"id": id, "type": kind, "title": p.Title, "description": p.Help, "datasource": source(p.SQL), "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}, "options": options(kind),
	}
}

func options(kind string) object {
	switch kind {
	case "stat":
		return object{"colorMode": "value", "reduceOptions": object{"calcs": []string{"lastNotNull"}}, "textMode": "auto"}
	case "table":
		return object{"showHeader": true}
	default:
		return object{"legend": object{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}}, "tooltip": object{"mode": "multi"}}
	}
}
