"""What a command works with: the reactor, the configuration, peers, connections and stores."""
