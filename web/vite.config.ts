import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../backend/api/page", // it is part of the Python package
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1600, // the layout of some diagrams, which is loaded with the first of them
    rollupOptions: { input: ["index.html", "shared.html", "diagrams.html"] },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8006" } },
});
