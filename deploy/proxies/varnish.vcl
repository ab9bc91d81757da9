vcl 4.1;

# Varnish 7: nothing is cached, everything is streamed. Put TLS and HTTP/2 in front of it (hitch, or another proxy).
backend default {
  .host = "127.0.0.1";
  .port = "8006";
  .first_byte_timeout = 75s;
  .between_bytes_timeout = 75s;
}

sub vcl_recv {
  if (req.url ~ "^/metrics") {
    return (synth(404));
  }
  return (pass);
}

sub vcl_backend_response {
  set beresp.do_stream = true;
  set beresp.uncacheable = true;
}
