import { Component, type ReactNode } from "react";

interface Props {
  instead: ReactNode;
  children: ReactNode;
}

// Shows `instead` when a child fails to render. The rest of the page is not affected.
export class Boundary extends Component<Props, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    return this.state.failed ? this.props.instead : this.props.children;
  }
}
