/* One operation, whose outcome arrives by several routes and is applied once.
 *
 * Each rule of the design is a constant: 1 keeps it, 0 drops it.
 *   DEDUP  an outcome is stored only if there is none yet (compare-and-set)
 *   WHOLE  the consequences of an outcome are stored in the same transaction as the outcome
 *   KNOWN  the operation is committed before its generator is called */
#ifndef DEDUP
#define DEDUP 1
#endif
#ifndef WHOLE
#define WHOLE 1
#endif
#ifndef KNOWN
#define KNOWN 1
#endif

#define NONE 0
#define RESULT 1
#define EXPIRED 2
#define CANCELLED 3

bool registered, called;
byte outcome, first_outcome, applied;
byte deaths = 1;
bool queued, unknown, changed;
byte over; /* routes that have ended */

inline store(what) {
  if :: outcome != NONE && outcome != what -> changed = true :: else fi;
  outcome = what;
  if :: WHOLE -> follow(what) :: else fi
}

inline follow(what) {
  applied++;
  if :: what != CANCELLED -> queued = true :: else fi
}

/* All routes call this. `won` is true for the first outcome; a second one changes nothing. */
inline complete(what) {
  won = false;
  if
  :: DEDUP -> atomic { if :: outcome == NONE -> store(what); won = true :: else fi }
  :: else -> seen = outcome; if :: seen == NONE -> atomic { store(what); won = true } :: else fi
  fi;
  if
  :: !WHOLE && won ->
    if :: atomic { deaths > 0 -> deaths--; } :: atomic { follow(what) } fi
  :: else
  fi
}

/* The turn in which the tool answered `Accepted`. */
active proctype Tool() {
  if :: KNOWN -> registered = true :: else fi;
  called = true;
  registered = true
}

/* The generator calls the webhook until it gets an answer; one answer may be lost. It does not retry after a 404. */
active [2] proctype Webhook() {
  bool won; byte seen, lost;
  called;
again:
  if
  :: !registered -> unknown = true
  :: registered ->
    complete(RESULT);
    if :: lost == 0 -> lost = 1; goto again :: true fi
  fi;
  over++
}

/* A stream entry is delivered until it is acknowledged; its consumer may die before that. */
active proctype Entry() {
  bool won; byte seen;
  called;
again:
  registered;
  complete(RESULT);
  if :: atomic { deaths > 0 -> deaths--; }; goto again :: true fi;
  over++
}

active proctype Deadline() {
  bool won; byte seen;
  registered;
  if :: complete(EXPIRED) :: outcome != NONE fi;
  over++
}

active proctype User() {
  bool won; byte seen;
  registered;
  if :: complete(CANCELLED) :: true fi;
  over++
}

#define once    (applied <= 1)
#define first   (!changed)
#define known   (!unknown)
#define follows ((over == 5) -> (applied == 1 && (queued || outcome == CANCELLED)))

ltl all_of_these  { [] (once && first && known && follows) }
ltl applied_once  { [] once }
ltl first_wins    { [] first }
ltl never_unknown { [] known }
ltl goes_on       { [] follows }
