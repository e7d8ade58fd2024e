package main

import (
	"fmt"

	"github.com/outlastmq/outlast/examples/shop"
)

// report prints what the tables say, and returns an error when a promise was broken.
func (d *demo) report(r *shop.Report) error {
	verdict := d.verdict(r)
	if d.p.json {
		if err := d.p.printJSONLine(r); err != nil {
			return err
		}
		return verdict
	}
	p := d.p
	p.printf("\nReport, computed from the services' own tables\n\n")
	t := newTable("group", "committed>", "handled>", "retried>", "dead>", "lost>", "doubled>", "out of order>", "longest backlog>", "recovery>")
	for _, name := range shop.Services {
		a := r.Groups[name]
		t.add(append([]string{name}, accountCells(a, r)...)...)
	}
	t.add(append([]string{"all"}, accountCells(r.Account, r)...)...)
	t.write(p.out)
	p.printf("\n%s became %s; %s were poison, and %s are dead letters.\n",
		plural(r.Orders, "order"), plural(r.Committed, "message"), grouped(r.Poison), grouped(r.Dead))
	if !d.f.noFaults {
		p.printf("The broker was away for %s. At most %s waited in the outboxes, and they had left %.1f s after its return.\n",
			durationText(d.f.outage), plural(r.LongestBacklog, "message"), r.RecoverySeconds)
	}
	if verdict == nil {
		p.printf("Nothing was lost, nothing took effect twice, nothing out of order.\n")
	}
	if d.f.dir != "" && d.databases[1].Store.Engine() == "sqlite" {
		p.printf("\nTo look at the dead letters:\n  outlast dead list --database sqlite:%s/payments.db\n", d.dir)
	}
	return verdict
}

func accountCells(a shop.Account, r *shop.Report) []string {
	recovery := "-"
	if r.RecoverySeconds > 0 {
		recovery = fmt.Sprintf("%.1f s", a.RecoverySeconds)
	}
	return []string{grouped(a.Committed), grouped(a.Handled), grouped(a.Retried), grouped(a.Dead),
		grouped(a.Lost), grouped(a.Doubled), grouped(a.OutOfOrder), grouped(a.LongestBacklog), recovery}
}
