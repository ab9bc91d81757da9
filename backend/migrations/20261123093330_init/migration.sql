-- CreateTable
CREATE TABLE "sessions" (
    "id" TEXT NOT NULL,
    "user_id" TEXT,
    "title" TEXT,
    "metadata" JSONB NOT NULL DEFAULT '{}',
    "last_sequence" INTEGER NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "sessions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "messages" (
    "session_id" TEXT NOT NULL,
    "sequence" INTEGER NOT NULL,
    "task_id" TEXT NOT NULL,
    "step" INTEGER NOT NULL,
    "part" INTEGER NOT NULL,
    "role" TEXT NOT NULL,
    "parts" JSON NOT NULL,
    "message_id" TEXT,
    "superseded_by" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "messages_pkey" PRIMARY KEY ("session_id","sequence")
);

-- CreateTable
CREATE TABLE "tasks" (
    "id" TEXT NOT NULL,
    "number" BIGSERIAL NOT NULL,
    "session_id" TEXT NOT NULL,
    "user_id" TEXT,
    "quota_key" TEXT NOT NULL,
    "kind" TEXT NOT NULL DEFAULT 'turn',
    "status" TEXT NOT NULL DEFAULT 'queued',
    "active_session_id" TEXT,
    "priority" INTEGER NOT NULL DEFAULT 0,
    "attempt" INTEGER NOT NULL DEFAULT 0,
    "crashes" INTEGER NOT NULL DEFAULT 0,
    "owner" TEXT,
    "cancel_requested_at" TIMESTAMPTZ(6),
    "checkpoint" TEXT,
    "steps" INTEGER NOT NULL DEFAULT 0,
    "request" JSONB NOT NULL,
    "result" JSONB,
    "error" JSONB,
    "message_key" TEXT,
    "tool_name" TEXT,
    "operation_id" TEXT,
    "tool_call_id" TEXT,
    "deadline_at" TIMESTAMPTZ(6),
    "published_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(6),
    "finished_at" TIMESTAMPTZ(6),

    CONSTRAINT "tasks_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "usage" (
    "task_id" TEXT NOT NULL,
    "step" INTEGER NOT NULL,
    "input_tokens" INTEGER NOT NULL,
    "output_tokens" INTEGER NOT NULL,
    "reasoning_tokens" INTEGER NOT NULL,
    "cached_tokens" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "usage_pkey" PRIMARY KEY ("task_id","step")
);

-- CreateTable
CREATE TABLE "executors" (
    "id" TEXT NOT NULL,
    "seen_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "executors_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "understanding" (
    "owner" TEXT NOT NULL,
    "session_id" TEXT,
    "facts" JSONB NOT NULL,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "understanding_pkey" PRIMARY KEY ("owner")
);

-- CreateIndex
CREATE INDEX "sessions_user_id_updated_at_idx" ON "sessions"("user_id", "updated_at" DESC);

-- CreateIndex
CREATE INDEX "messages_session_id_message_id_idx" ON "messages"("session_id", "message_id");

-- CreateIndex
CREATE UNIQUE INDEX "messages_task_id_step_part_key" ON "messages"("task_id", "step", "part");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_number_key" ON "tasks"("number");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_active_session_id_key" ON "tasks"("active_session_id");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_operation_id_key" ON "tasks"("operation_id");

-- CreateIndex
CREATE INDEX "tasks_session_id_status_idx" ON "tasks"("session_id", "status");

-- CreateIndex
CREATE INDEX "tasks_quota_key_status_idx" ON "tasks"("quota_key", "status");

-- CreateIndex
CREATE INDEX "tasks_owner_idx" ON "tasks"("owner");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_session_id_message_key_key" ON "tasks"("session_id", "message_key");

-- CreateIndex
CREATE INDEX "understanding_session_id_idx" ON "understanding"("session_id");

-- AddForeignKey
ALTER TABLE "messages" ADD CONSTRAINT "messages_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "messages" ADD CONSTRAINT "messages_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "usage" ADD CONSTRAINT "usage_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "tasks"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

-- AddForeignKey
ALTER TABLE "understanding" ADD CONSTRAINT "understanding_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

