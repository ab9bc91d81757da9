-- CreateTable
CREATE TABLE "published_agents" (
    "library_agent_id" TEXT NOT NULL,
    "version" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT NOT NULL,
    "published_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "published_agents_pkey" PRIMARY KEY ("library_agent_id")
);

-- CreateTable
CREATE TABLE "feature_requests" (
    "id" TEXT NOT NULL,
    "user_id" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "title" TEXT NOT NULL,
    "description" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "feature_requests_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "published_agents_published_at_idx" ON "published_agents"("published_at" DESC);

-- CreateIndex
CREATE UNIQUE INDEX "feature_requests_key_key" ON "feature_requests"("key");

-- CreateIndex
CREATE INDEX "feature_requests_user_id_idx" ON "feature_requests"("user_id");

-- CreateIndex
CREATE INDEX "feature_requests_created_at_idx" ON "feature_requests"("created_at" DESC);

-- AddForeignKey
ALTER TABLE "published_agents" ADD CONSTRAINT "published_agents_library_agent_id_fkey" FOREIGN KEY ("library_agent_id") REFERENCES "library_agents"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

