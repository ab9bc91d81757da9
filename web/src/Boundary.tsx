import { Component, type ReactNode } from "react";

interface Props {
  instead: ReactNode;
  children: ReactNode;
}

// What cannot be shown takes nothing else with it.
export class Boundary extends Component<Props, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    return this.state.failed ? this.props.instead : this.props.children;
  }
}
