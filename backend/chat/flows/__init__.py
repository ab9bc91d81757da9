"""Actions across several stores: start, finish and cancel a task, complete an operation."""
