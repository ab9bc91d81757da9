-- AlterTable
ALTER TABLE "tasks" ADD COLUMN     "active_since" TIMESTAMPTZ(6),
ADD COLUMN     "outcome" JSONB,
ADD COLUMN     "progress" JSONB;

-- CreateTable
CREATE TABLE "library_agents" (
    "id" TEXT NOT NULL,
    "user_id" TEXT NOT NULL,
    "graph_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "library_agents_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "agent_versions" (
    "library_agent_id" TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "graph" JSON NOT NULL,
    "task_id" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "agent_versions_pkey" PRIMARY KEY ("library_agent_id","version")
);

-- CreateIndex
CREATE INDEX "library_agents_user_id_updated_at_idx" ON "library_agents"("user_id", "updated_at" DESC);

-- CreateIndex
CREATE UNIQUE INDEX "library_agents_user_id_graph_id_key" ON "library_agents"("user_id", "graph_id");

-- CreateIndex
CREATE INDEX "tasks_deadline_at_idx" ON "tasks"("deadline_at");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_session_id_tool_call_id_key" ON "tasks"("session_id", "tool_call_id");

-- AddForeignKey
ALTER TABLE "agent_versions" ADD CONSTRAINT "agent_versions_library_agent_id_fkey" FOREIGN KEY ("library_agent_id") REFERENCES "library_agents"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

