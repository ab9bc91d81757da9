-- CreateTable
CREATE TABLE "remote_tasks" (
    "id" TEXT NOT NULL,
    "server" TEXT NOT NULL,
    "tool" TEXT NOT NULL,
    "remote_id" TEXT NOT NULL,
    "whose" TEXT,
    "executor" TEXT,
    "due_at" TIMESTAMPTZ(6) NOT NULL,
    "stopping" BOOLEAN NOT NULL DEFAULT false,

    CONSTRAINT "remote_tasks_pkey" PRIMARY KEY ("id")
);

