// Next.js: the page's /api goes to the service, with the service's own Host. Name the page's origin in FRONTEND_BASE_URL.
// Put a proxy with HTTP/2 in front of Next.js too.
export default {
  async rewrites() {
    return [{ source: "/api/:path*", destination: "http://127.0.0.1:8006/api/:path*" }];
  },
};
