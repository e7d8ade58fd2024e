package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// BenchmarkScanRow decodes a picked row as it comes from the wire.
func BenchmarkScanRow(b *testing.B) {
	types := pgtype.NewMap()
	fields, values := pickedRow(b, types)
	var plans []pgtype.ScanPlan // as pgx keeps them for the rows of one query
	var r rowScan
	dest := r.dest()
	for i, d := range dest {
		plans = append(plans, types.PlanScan(fields[i].DataTypeOID, fields[i].Format, d))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, d := range dest {
			if err := plans[i].Scan(values[i], d); err != nil {
				b.Fatal(err)
			}
		}
		if row := r.row(); len(row.Body) != 256 {
			b.Fatal("the body is missing")
		}
	}
}

// pickedRow is a row of {{row}} in binary form.
func pickedRow(b *testing.B, types *pgtype.Map) (fields []pgconn.FieldDescription, values [][]byte) {
	add := func(oid uint32, v any) {
		var value []byte
		if v != nil {
			var err error
			if value, err = types.Encode(oid, pgtype.BinaryFormatCode, v, []byte{}); err != nil {
				b.Fatal(err)
			}
		}
		fields = append(fields, pgconn.FieldDescription{DataTypeOID: oid, Format: pgtype.BinaryFormatCode})
		values = append(values, value)
	}
	add(pgtype.Int8OID, int64(123456))
	add(pgtype.Int2OID, int16(17))
	add(pgtype.UUIDOID, [16]byte(uuid.New()))
	add(pgtype.TextOID, "order.placed.v1")
	add(pgtype.TextOID, "event")
	add(pgtype.TextOID, strings.Repeat("x", 256))
	add(pgtype.ByteaOID, nil)
	for i := range optionalTexts {
		add(pgtype.TextOID, []string{"order-1234", ""}[min(i, 1)])
	}
	add(pgtype.TextOID, nil)
	add(pgtype.BoolOID, false)
	for range 3 {
		add(pgtype.TimestamptzOID, nil)
	}
	add(pgtype.TimestamptzOID, time.Now())
	add(pgtype.BoolOID, false)
	add(pgtype.BoolOID, false)
	return fields, values
}
