package outlast

import "time"

// RetryPolicy says how often and when a failed message is tried again. The zero
// value is 15 attempts, 1 s doubling to 10 minutes: about half an hour in all.
// Outages cost no attempt, whatever the policy.
type RetryPolicy struct {
	// Attempts is how many tries fail, the first one included, before the message
	// becomes a dead letter. Range 1 to 1,000; default 15.
	Attempts int
	// First is the greatest pause after the first failure; each further failure doubles
	// it up to Longest. The real pause is random between 0 and that ("full jitter").
	// Ranges 1ms to Longest, and First to 7 days; defaults 1s and 10min.
	First   time.Duration
	Longest time.Duration
}

func (p *RetryPolicy) setDefaults() {
	setDefault(&p.Attempts, 15)
	setDefault(&p.First, time.Second)
	setDefault(&p.Longest, max(10*time.Minute, p.First))
}

func (p *RetryPolicy) check(bad *fieldErrors, field string) {
	inRange(bad, field+".Attempts", p.Attempts, 1, 1000)
	inRange(bad, field+".Longest", p.Longest, time.Millisecond, 7*24*time.Hour)
	inRange(bad, field+".First", p.First, time.Millisecond, p.Longest)
}

// Horizon is the longest time that retries can take when every pause is as long
// as it can be. It does not count outages, which cost no attempt.
func (p RetryPolicy) Horizon() time.Duration {
	p.setDefaults()
	var sum time.Duration
	for n := 1; n < p.Attempts; n++ {
		sum += p.longest(n)
	}
	return sum
}

// longest is the greatest pause after n failures, n counted from 1.
func (p RetryPolicy) longest(n int) time.Duration {
	return doubling(p.First, p.Longest, n-1)
}

// backoff is the pause after n failures, n counted from 1.
func (p RetryPolicy) backoff(n int) time.Duration {
	return jitter(p.longest(n))
}
