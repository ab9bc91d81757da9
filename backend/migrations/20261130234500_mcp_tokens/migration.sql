-- CreateTable
CREATE TABLE "tool_server_grants" (
    "owner" TEXT NOT NULL,
    "server" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "version" INTEGER NOT NULL DEFAULT 1,
    "sealed" BYTEA NOT NULL,
    "scopes" TEXT NOT NULL DEFAULT '',
    "expires_at" TIMESTAMPTZ(6),
    "leased_until" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tool_server_grants_pkey" PRIMARY KEY ("owner","server")
);

-- CreateTable
CREATE TABLE "tool_server_sign_ins" (
    "id" TEXT NOT NULL,
    "owner" TEXT NOT NULL,
    "server" TEXT NOT NULL,
    "session_id" TEXT NOT NULL,
    "sealed" BYTEA NOT NULL,
    "state_hash" TEXT,
    "state_until" TIMESTAMPTZ(6),
    "done_at" TIMESTAMPTZ(6),
    "expires_at" TIMESTAMPTZ(6) NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tool_server_sign_ins_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "tool_server_clients" (
    "issuer" TEXT NOT NULL,
    "redirect_uri" TEXT NOT NULL,
    "sealed" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tool_server_clients_pkey" PRIMARY KEY ("issuer","redirect_uri")
);

-- CreateIndex
CREATE UNIQUE INDEX "tool_server_sign_ins_state_hash_key" ON "tool_server_sign_ins"("state_hash");

-- CreateIndex
CREATE INDEX "tool_server_sign_ins_owner_created_at_idx" ON "tool_server_sign_ins"("owner", "created_at");

-- CreateIndex
CREATE INDEX "tool_server_sign_ins_session_id_idx" ON "tool_server_sign_ins"("session_id");

-- CreateIndex
CREATE INDEX "tool_server_sign_ins_expires_at_idx" ON "tool_server_sign_ins"("expires_at");

-- AddForeignKey
ALTER TABLE "tool_server_sign_ins" ADD CONSTRAINT "tool_server_sign_ins_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE NO ACTION;

