/* One turn: its claims in Postgres, its stream in Redis, and two executors that die or are wrongly taken for dead.
 *
 * Each rule of the design is a constant: 1 keeps it, 0 drops it. check.py drops one at a time: a promise must break.
 *   FENCE  the stream refuses entries of an attempt that is older than its newest entry's
 *   CAS    a commit checks that its attempt is still the current one
 *   ORDER  the end is committed before it is written to the stream
 *   DRAIN  a checkpoint is committed after the stream has acknowledged all entries before it
 *   SEAL   an executor that takes over appends its fence before it reads what to remove
 *   TRIM   an executor that takes over removes what the dead attempt wrote after the checkpoint
 *   START  a tool's call is committed before the tool runs
 *
 * The turn has three commits: the model's message with its call (SAID), the call's result (GOT), and the end, which
 * stores the model's message about the result (LAST). */
#ifndef FENCE
#define FENCE 1
#endif
#ifndef CAS
#define CAS 1
#endif
#ifndef ORDER
#define ORDER 1
#endif
#ifndef DRAIN
#define DRAIN 1
#endif
#ifndef SEAL
#define SEAL 1
#endif
#ifndef TRIM
#define TRIM 1
#endif
#ifndef START
#define START 1
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef DOUBTS
#define DOUBTS 1
#endif

#define NOBODY 15
#define ENTRIES 24
#define FENCE_ENTRY 1
#define MARKER 2
#define SAID 3
#define GOT 4
#define LAST 5
#define END 6

/* Postgres */
byte attempt, owner = NOBODY, steps, checkpoint, ended_by;
bool ended;
/* the stream: attempt by[i] wrote entry i; a removed entry keeps its index */
byte by[ENTRIES], kind[ENTRIES], length, top;
bool removed[ENTRIES];
bool has_end;
/* the environment: which executors live, how many deaths and wrong suspicions are left */
byte names;
bool alive[6];
byte deaths = DEATHS, doubts = DOUBTS;
/* records of what must never happen */
byte finals, commits[3], effects;
bool old_after_new, end_before_commit, entry_after_end, not_clean, left_over;

/* XADD with an explicit id, as one command. `last` is the index of the entry. */
inline append(what) {
  atomic {
    if
    :: FENCE && mine < top -> refused = true
    :: else ->
      refused = false;
      if :: mine < top -> old_after_new = true :: else -> top = mine fi;
      if :: has_end -> entry_after_end = true :: else fi;
      by[length] = mine; kind[length] = what; last = length; length++;
      if :: what == END -> look_at_the_end() :: else fi
    fi
  }
}

/* Runs when the end is written: checks what a new reader would get now. */
inline look_at_the_end() {
  has_end = true;
  if :: !ended -> end_before_commit = true :: else fi;
  i = 0; wanted = SAID;
  do
  :: i == length -> break
  :: else ->
    if
    :: !removed[i] && kind[i] >= SAID && kind[i] <= LAST ->
      if :: kind[i] != wanted -> not_clean = true :: else -> wanted++ fi
    :: else
    fi;
    i++
  od;
  if :: wanted != LAST + 1 -> not_clean = true :: else fi;
  i = 0; wanted = 0
}

/* A transaction that stores a step and its checkpoint, the place in the stream up to which messages are stored. */
inline commit_step(step, place) {
  atomic {
    stands = !CAS || (attempt == mine && owner == me && !ended);
    if :: stands -> steps = step; checkpoint = place; commits[step]++ :: else fi
  }
}

inline commit_end() {
  atomic {
    stands = !CAS || (attempt == mine && owner == me && !ended);
    if :: stands -> ended = true; ended_by = mine; owner = NOBODY; finals++ :: else fi
  }
}

inline may_die() {
  if :: atomic { deaths > 0 -> deaths--; alive[me] = false }; goto begin :: true fi
}

/* Removes, in one command, what earlier attempts wrote after the checkpoint. */
inline remove_tail(from, to) {
  atomic {
    i = from;
    do :: i >= to -> break :: else -> if :: by[i] < mine -> removed[i] = true :: else fi; i++ od;
    i = 0;
    do
    :: i == length -> break
    :: else ->
      if :: i >= checkpoint && attempt == mine && !removed[i] && by[i] < mine && kind[i] >= SAID -> left_over = true
      :: else fi;
      i++
    od;
    i = 0
  }
}

active [2] proctype Executor() {
  byte me, mine, last, i, wanted, known, base, seen;
  bool refused, stands;

begin:
  atomic { me = names; names++; alive[me] = true };
wait:
  mine = 0; known = 0; base = 0; seen = 0; last = 0; refused = false; stands = false;
  if
  :: atomic { !ended && (owner == NOBODY || !alive[owner]) -> attempt++; owner = me; mine = attempt; known = steps; base = checkpoint }
  :: atomic { doubts > 0 && !ended && owner != NOBODY && owner != me -> /* a living owner looks dead */
       doubts--; attempt++; owner = me; mine = attempt; known = steps; base = checkpoint }
  :: atomic { ended && !has_end -> mine = ended_by };
     may_die();
     atomic { if :: !has_end -> append(END) :: else fi };
     goto wait
  :: has_end -> goto over
  fi;
  may_die();

  if
  :: mine == 1
  :: else -> /* take over */
    if :: !SEAL -> seen = length :: else fi;
    append(FENCE_ENTRY);
    if :: refused -> goto wait :: else fi;
    if :: SEAL -> seen = length :: else fi;
    may_die();
    append(MARKER);
    if :: refused -> goto wait :: else fi;
    may_die();
    if :: TRIM -> remove_tail(base, seen) :: else fi;
    may_die()
  fi;

  if
  :: known == 0 ->
    if :: !START -> effects++; may_die() :: else fi;
    if :: !DRAIN -> commit_step(1, length + 1); if :: !stands -> goto wait :: else fi; may_die() :: else fi;
    append(SAID);
    if :: refused -> goto wait :: else fi;
    may_die();
    if :: DRAIN -> commit_step(1, last + 1); if :: !stands -> goto wait :: else fi :: else fi;
    may_die();
    if :: START -> effects++ :: else fi;
    may_die()
  :: else /* already said; if the call has no result, it may have run, so it is not run again */
  fi;

  if
  :: known < 2 ->
    append(GOT);
    if :: refused -> goto wait :: else fi;
    may_die();
    commit_step(2, last + 1);
    if :: !stands -> goto wait :: else fi;
    may_die()
  :: else
  fi;

  append(LAST);
  if :: refused -> goto wait :: else fi;
  may_die();
  if
  :: ORDER ->
    commit_end();
    if :: !stands -> goto wait :: else fi;
    may_die();
    atomic { if :: !has_end -> append(END) :: else fi }
  :: else ->
    append(END);
    if :: refused -> goto wait :: else fi;
    may_die();
    commit_end();
    if :: !stands -> goto wait :: else fi
  fi;
  goto wait;
over:
  skip
}

#define once        (finals <= 1)
#define by_last     (ended -> ended_by == attempt)
#define in_order    (!old_after_new)
#define end_true    (!end_before_commit)
#define end_last    (!entry_after_end)
#define stored      (commits[1] <= 1 && commits[2] <= 1)
#define clean       (!not_clean)
#define gone        (!left_over)
#define one_effect  (effects <= 1)

ltl all_of_these      { [] (once && by_last && in_order && end_true && end_last && stored && clean && gone && one_effect) }
ltl ends_once         { [] once }
ltl last_attempt_ends { [] by_last }
ltl new_after_old     { [] in_order }
ltl end_is_true       { [] end_true }
ltl end_is_last       { [] end_last }
ltl stored_once       { [] stored }
ltl readers_see_all   { [] clean }
ltl tail_is_gone      { [] gone }
ltl effect_once       { [] one_effect }
ltl it_ends           { <> has_end }
