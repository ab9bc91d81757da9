// Vite's development server. It does not tell the browser when the service cuts a stream: see docs/deployment.md.
export default {
  server: { proxy: { "/api": { target: "http://127.0.0.1:8006", changeOrigin: false } } }, // with the page's own Host
};
